//! Everything that can happen to kubelet, at every moment of its dealings with the plugin.

use std::time::Duration;

use culvert_api::config::device_plugin::Registration;
use culvert_hw_tests::kubelet::{KubeletStandIn, Moment};
use futures::future::join_all;

use crate::node::{A, Node, all, vfs};

/// Long enough for a loaded machine with dozens of kubelets.
const PATIENCE: Duration = Duration::from_secs(20);

/// What happens.
#[derive(Debug, Clone, Copy)]
enum Event {
    /// Kubelet restarts.
    Restart,
    /// It restarts, comes to the same moment and restarts again.
    Twice,
    /// It restarts, and its socket has the inode number of the old one.
    SameInode,
    /// It is away for a while.
    Away,
    /// It restarts and refuses the plugin a few times.
    Refuse,
    /// It ends the list.
    HangUp,
    /// The plugin's socket is removed, by whomever.
    Wipe,
}

const EVENTS: [Event; 7] =
    [Event::Restart, Event::Twice, Event::SameInode, Event::Away, Event::Refuse, Event::HangUp, Event::Wipe];

/// Brings the stand-in to the moment.
async fn bring(kubelet: &mut KubeletStandIn, moment: Moment) {
    if moment != Moment::InAllocate {
        kubelet.halt(Some(moment));
        kubelet.halted(PATIENCE).await.unwrap();
        return;
    }
    kubelet.wait(A, PATIENCE, all(4)).await.unwrap();
    kubelet.halt(Some(moment));
    let ids = ["0000:03:02.1".to_owned()];
    tokio::select! {
        answer = kubelet.allocate_ids(A, &ids) => panic!("answered: {answer:?}"),
        halted = kubelet.halted(PATIENCE) => halted.unwrap(),
    }
}

async fn happen(node: &Node, kubelet: &mut KubeletStandIn, moment: Moment, event: Event, socket: &str) {
    match event {
        Event::Restart => kubelet.restart().await.unwrap(),
        Event::Twice => {
            kubelet.restart().await.unwrap();
            bring(kubelet, moment).await;
            kubelet.restart().await.unwrap();
        }
        Event::SameInode => kubelet.restart_with_same_inode().await.unwrap(),
        Event::Away => {
            kubelet.stop().await;
            tokio::time::sleep(Duration::from_millis(50)).await;
            kubelet.resume().await.unwrap();
        }
        Event::Refuse => {
            kubelet.stop().await;
            kubelet.refuse(3, "not now");
            kubelet.resume().await.unwrap();
        }
        Event::HangUp => {
            kubelet.halt(None);
            kubelet.hang_up(A);
        }
        Event::Wipe => {
            std::fs::remove_file(node.path(socket)).unwrap();
            kubelet.halt(None);
        }
    }
}

async fn case(registration: Registration, moment: Moment, event: Event) {
    let node = Node::new(vfs("a", 0..4));
    let socket = match registration {
        Registration::Watcher => "plugins_registry/culvert-culvert.io_a.sock",
        _ => "device-plugins/culvert-culvert.io_a.sock",
    };
    std::fs::create_dir(node.path("plugins_registry")).unwrap();
    let mut kubelet = node.kubelet().await;
    if moment != Moment::InAllocate {
        kubelet.halt(Some(moment));
    }
    let plugin = node.plugin(registration);
    bring(&mut kubelet, moment).await;
    happen(&node, &mut kubelet, moment, event, socket).await;
    let name = format!("{registration:?}, {moment:?}, {event:?}");
    // The list that is there may be the one from before: what counts is that it stays.
    let mut still = 0;
    while still < 3 {
        kubelet.wait(A, PATIENCE, all(4)).await.unwrap_or_else(|error| panic!("{name}: {error}"));
        tokio::time::sleep(Duration::from_millis(50)).await;
        still = if kubelet.resource(A).as_ref().is_some_and(all(4)) { still + 1 } else { 0 };
    }
    let resource = kubelet.resource(A).unwrap();
    assert_eq!(resource.least, Some(4), "{name}: a list of less than the whole pool");
    kubelet
        .allocate_ids(A, &["0000:03:02.2".to_owned()])
        .await
        .unwrap_or_else(|error| panic!("{name}: {error}"));
    plugin.shutdown().await;
}

async fn all_cases(registration: Registration) {
    for moment in Moment::ALL {
        join_all(EVENTS.map(|event| case(registration, moment, event))).await;
    }
}

#[tokio::test]
async fn at_whatever_moment_kubelet_goes_the_plugin_that_calls_it_is_known_again_whole() {
    all_cases(Registration::Kubelet).await;
}

#[tokio::test]
async fn at_whatever_moment_kubelet_goes_the_plugin_that_it_finds_is_known_again_whole() {
    all_cases(Registration::Watcher).await;
}

#[tokio::test]
async fn a_kubelet_socket_with_the_very_inode_of_the_old_one_is_noticed_at_once() {
    let node = Node::new(vfs("a", 0..2));
    let mut kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    for restart in 1..=3 {
        kubelet.wait(A, PATIENCE, |r| all(2)(r) && r.registrations == restart).await.unwrap();
        kubelet.restart_with_same_inode().await.unwrap();
    }
    kubelet.wait(A, PATIENCE, |r| all(2)(r) && r.registrations == 4).await.unwrap();
    plugin.shutdown().await;
}
