//! Lets the same happen to the engine and to the model, and compares after every packet and every change.

use std::cell::OnceCell;

use proptest::test_runner::TestCaseError;

use crate::engine::{Engine, Tracked};
use crate::model::choice::Trial;
use crate::model::flow::Key;
use crate::model::tables::{Port, Said};
use crate::model::{End, Model};
use crate::story::Story;
use crate::wire::Frame;
use crate::world::event::{Event, How, flood};
use crate::world::{UPLINK, tables};

pub(crate) struct Pair {
    engine: Engine,
    pub(crate) model: Model,
    story: Story,
}

type Outcome = Result<(), TestCaseError>;

impl Pair {
    /// With room for so many flows.
    pub(crate) fn new(flows: u32) -> Self {
        Self { engine: Engine::new(flows), model: Model::new(flows), story: Story::default() }
    }

    /// Lets something happen.
    pub(crate) fn happen(&mut self, event: &Event) -> Outcome {
        match event {
            Event::Packets(shots) => {
                let model = &self.model;
                let frames: Vec<_> = shots.iter().filter_map(|shot| shot.frame(model)).collect();
                self.packets(&frames)?;
            }
            Event::Flood { pod, service, flows } => {
                let frames = flood(&self.model, *pod, *service, flows.clone());
                self.packets(&frames)?;
            }
            Event::Said(said, how) => self.said(said, *how),
            Event::Shift { service, backend, shift, how } => {
                if let Some(said) = shift.said(&self.model.tables, *service, *backend) {
                    self.said(&said, *how);
                }
            }
            Event::Attach(pod, port) => self.attach(*pod as u16 + 1, port),
            Event::Uplink => self.attach(UPLINK, &tables::uplink()),
            Event::Detach(index) => {
                self.story.happened(format!("port {index} goes"));
                self.engine.detach(*index);
                self.model.tables.ports.remove(index);
            }
            Event::Neighbours(known) => {
                self.story.happened(format!("neighbours: {known:?}"));
                self.engine.neighbours(known);
                self.model.tables.neighbours.clone_from(known);
            }
            Event::PathMtus(known) => {
                self.story.happened(format!("path MTUs: {known:?}"));
                self.engine.path_mtus(known);
                self.model.tables.path_mtus.clone_from(known);
            }
            Event::Time(seconds) => {
                self.story.happened(format!("{seconds} seconds go by"));
                self.model.seconds += seconds;
                let short = self.model.is_short();
                self.engine.age(self.model.seconds);
                self.model.age();
                if short {
                    self.let_go()?;
                }
            }
        }
        self.compare_state()
    }

    pub(crate) fn said(&mut self, said: &Said, how: How) {
        let changes = self.model.tables.may_change_to(said).then_some(how);
        match changes {
            Some(How::Changes { all }) => {
                self.story.happened(format!("the agent says by changes, all {all}: {said:?}"));
                self.engine.change(&self.model.tables, said, all);
            }
            Some(How::Whole) | None => {
                self.story.happened(format!("the agent says: {said:?}"));
                self.engine.take(said);
            }
        }
        self.model.take(said);
    }

    pub(crate) fn attach(&mut self, index: u16, port: &Port) {
        self.story.happened(format!("port {index} comes: {port:?}"));
        self.engine.attach(index, port);
        if self.model.tables.ports.insert(index, port.clone()).is_none() {
            self.model.counters.ports.remove(&index);
        }
    }

    /// Packets come in, those that follow each other at one port as a burst.
    pub(crate) fn packets(&mut self, frames: &[(u16, Frame)]) -> Outcome {
        for burst in frames.chunk_by(|a, b| a.0 == b.0) {
            // Which flows leave a full table is the engine's choice, and seen only between bursts. When few errors may be
            // sent, it matters that a burst's IPv4 packets go before the others.
            let one_by_one = self.model.is_tight(burst.len()) || self.model.may_tell_little(burst.len());
            let len = if one_by_one { 1 } else { burst.len() };
            for burst in burst.chunks(len) {
                let frames: Vec<_> = burst.iter().map(|(_, frame)| frame.clone()).collect();
                self.burst(burst[0].0, &frames)?;
            }
        }
        Ok(())
    }

    fn burst(&mut self, port: u16, frames: &[Frame]) -> Outcome {
        let tight = self.model.is_tight(frames.len());
        let ends = self.engine.receive(self.model.seconds, port, frames);
        for (frame, end) in frames.iter().zip(&ends) {
            self.decide(port, frame, end)?;
            self.story.packet(port, frame, end);
        }
        if tight { self.let_go() } else { Ok(()) }
    }

    /// Whether what became of a packet is among what the model allows; the model then goes on from there.
    fn decide(&mut self, port: u16, frame: &Frame, end: &End) -> Outcome {
        let (engine, seconds) = (&self.engine, self.model.seconds);
        let tracked = OnceCell::new();
        let entered = |original: &Key| {
            let tracked: &Vec<Tracked> = tracked.get_or_init(|| engine.tracked(seconds));
            tracked.iter().find(|flow| flow.original == *original).map(|flow| flow.translated)
        };
        let sent = if let End::Send(_, frame) = end { Some(&frame.bytes[..]) } else { None };
        let mut trial = Trial::new(sent, &entered);
        let mut allowed = Vec::new();
        loop {
            let mut model = self.model.clone();
            let expected = model.receive(port, frame, &mut trial);
            if expected == *end && model.overflows() == engine.overflows(seconds) {
                self.model = model;
                return Ok(());
            }
            allowed.push(expected);
            if !trial.advance() {
                break;
            }
        }
        Err(TestCaseError::fail(self.story.of_packet(&self.model.tables, port, frame, end, &allowed)))
    }

    /// Lets the model forget the flows that the engine let go to make room.
    fn let_go(&mut self) -> Outcome {
        let there: Vec<_> =
            self.engine.tracked(self.model.seconds).into_iter().map(|flow| flow.original).collect();
        let flows = self.model.flows.iter().map(|flow| flow.original);
        let gone: Vec<_> = flows.filter(|key| there.binary_search(key).is_err()).collect();
        if self.model.let_go(&gone) {
            return Ok(());
        }
        let flows = format!("{:?}", self.model.flows);
        Err(TestCaseError::fail(self.story.of_state(
            &self.model.tables,
            "flows that were let go",
            &format!("{gone:?}"),
            &flows,
        )))
    }

    fn compare_state(&mut self) -> Outcome {
        let tracked = self.engine.tracked(self.model.seconds);
        let now = self.model.tick();
        let idle = |seen: u64| (now - seen) * 2;
        for flow in &mut self.model.flows {
            let Some(refused) = flow.refused.take() else { continue };
            if tracked.iter().any(|other| other.original == flow.original && other.idle == idle(refused)) {
                flow.seen = refused;
            }
        }
        let (engine, model) = (&self.engine, &self.model);
        let mut expected: Vec<_> = model
            .flows
            .iter()
            .map(|flow| Tracked {
                original: flow.original,
                translated: flow.translated,
                state: format!("{:?}", flow.state),
                idle: idle(flow.seen),
            })
            .collect();
        expected.sort_unstable();
        self.same("flows", &tracked, &expected)?;

        let counted = |list: Vec<(&'static str, u64)>| {
            list.into_iter().filter(|(_, n)| *n > 0).collect::<std::collections::BTreeMap<_, _>>()
        };
        self.same("drops", &counted(engine.counters.drops()), &model.counters.drops)?;
        self.same("answers", &counted(engine.counters.answered()), &model.counters.answered)?;
        let flows = engine.counters.flows();
        let expected = (model.counters.created, model.counters.expired, model.counters.stateless, 0);
        self.same(
            "flow counters",
            &(flows.created, flows.expired, flows.stateless, flows.forgotten),
            &expected,
        )?;
        let errors = engine.counters.errors();
        let expected = (model.counters.errors_translated, model.counters.errors_limited);
        self.same("counters of errors", &(errors.translated, errors.limited), &expected)?;
        for index in model.tables.ports.keys() {
            let expected = model.counters.ports.get(index).copied().unwrap_or_default();
            self.same("port counters", &engine.port_count(*index), &expected)?;
        }
        for service in &model.tables.services {
            let expected = model.counters.services.get(&service.key).copied();
            self.same(
                "service counters",
                &(service.key, engine.service_count(service.key)),
                &(service.key, expected),
            )?;
        }
        Ok(())
    }

    fn same<T: PartialEq + std::fmt::Debug>(&self, what: &str, engine: &T, model: &T) -> Outcome {
        if engine == model {
            return Ok(());
        }
        let (engine, model) = (format!("{engine:?}"), format!("{model:?}"));
        Err(TestCaseError::fail(self.story.of_state(&self.model.tables, what, &engine, &model)))
    }
}
