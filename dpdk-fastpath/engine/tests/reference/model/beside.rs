//! Connections that look the same to an endpoint: one through a service, and one of the same client to the endpoint itself. Which of them
//! comes second gets another source port. But one through a service that is over is forgotten; and of one to the endpoint itself
//! nothing is known until the endpoint goes on with it instead of answering the other.

use super::choice::Trial;
use super::flow::{Flow, ITSELF, Key, rewritten};
use super::fragment::Served;
use super::route::Way;
use super::state::State;
use super::tables::ServiceKey;
use super::{End, Inside, Model};

/// What is there already when a connection to an endpoint itself begins.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Beside {
    Nothing,
    /// A connection with the same answers.
    Another,
}

impl Model {
    /// A connection that is not through a service begins.
    pub(crate) fn gives_way(&mut self, key: &Key) -> Beside {
        match self.flows.iter().position(|flow| flow.translated == *key) {
            Some(at) if self.flows[at].state.is_over() => {
                self.end(at);
                Beside::Nothing
            }
            Some(_) => Beside::Another,
            None => Beside::Nothing,
        }
    }

    pub(crate) fn open_beside(&mut self, inside: &Inside, way: &Way, trial: &mut Trial<'_>) -> End {
        let Key { tenant, protocol, dst, .. } = inside.key;
        let port = trial.source_port(&inside.key);
        if !self.has_place(&inside.key, trial) {
            return self.transmit(inside, way, inside.frame.clone(), trial);
        }
        let flow = Flow {
            original: inside.key,
            translated: inside.key,
            backend: dst,
            state: State::first(protocol),
            seen: self.tick(),
            refused: None,
            service: ServiceKey { tenant, vip: dst.0, protocol, port: dst.1 },
            life: ITSELF,
        };
        let translated = self.enter(flow, true, port);
        let served = Served { service: flow.service, backend: flow.backend, life: ITSELF };
        if let Err(why) = self.note_first(inside, translated, served) {
            return self.drop(inside.port, why);
        }
        self.transmit(inside, way, rewritten(inside, translated.src, translated.dst), trial)
    }

    /// A packet that is none of this flow, but looks like an answer.
    pub(crate) fn stray(&mut self, inside: &Inside, at: usize, trial: &mut Trial<'_>) -> End {
        let flow = self.flows[at];
        self.end(at);
        if self.is_alive(&flow) && self.has_place(&flow.original, trial) {
            let port = trial.entered_port(&flow.original);
            self.enter(Flow { seen: self.tick(), refused: None, ..flow }, true, port);
        }
        self.route(inside, trial)
    }
}
