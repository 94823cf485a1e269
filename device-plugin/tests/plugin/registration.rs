//! Becoming and staying known to a kubelet that comes, goes and refuses.

use std::os::unix::fs::MetadataExt;
use std::time::{Duration, Instant};

use crate::node::{A, Node, PATIENCE, SlowMotion, all, status, vfs};
use culvert_api::config::device_plugin::Registration;

#[tokio::test(start_paused = true)]
async fn a_restarted_kubelet_knows_the_plugin_again_within_a_second_every_time() {
    let _slow = SlowMotion::begin();
    let node = Node::new(vfs("a", 0..4));
    let mut kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(4)).await.unwrap();
    for restart in 1..=5 {
        kubelet.restart().await.unwrap();
        let resource = kubelet.wait(A, Duration::from_secs(1), all(4)).await.unwrap();
        assert_eq!(resource.registrations, 1 + restart);
        kubelet.allocate_ids(A, &["0000:03:02.0".to_owned()]).await.unwrap();
    }
    plugin.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_socket_with_the_old_inode_number_is_noticed() {
    let _slow = SlowMotion::begin();
    let node = Node::new(vfs("a", 0..1));
    let mut kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    let socket = kubelet.device_plugins().join("kubelet.sock");
    // The file system decides; those that reuse numbers do so at the first or second attempt.
    let mut same = 0;
    for _ in 0..20 {
        kubelet.wait(A, PATIENCE, all(1)).await.unwrap();
        let before = std::fs::metadata(&socket).unwrap().ino();
        kubelet.restart().await.unwrap();
        same += u32::from(std::fs::metadata(&socket).unwrap().ino() == before);
        kubelet.wait(A, Duration::from_secs(1), all(1)).await.unwrap();
    }
    eprintln!("{same} of 20 restarts kept the inode number");
    plugin.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_is_away_is_waited_for_while_its_socket_lies_there() {
    let slow = SlowMotion::begin();
    let node = Node::new(vfs("a", 0..2));
    let mut kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    kubelet.stop().await;
    assert!(kubelet.device_plugins().join("kubelet.sock").exists());
    let away =
        status(&plugin, |s| s.waiting.as_ref().is_some_and(|w| w.contains("is kubelet running?"))).await;
    assert_eq!((away.devices, away.healthy), (2, 2));
    // No time for anybody but the plugin: it tried two seconds ago, and would again in three.
    drop(slow);
    tokio::time::sleep(Duration::from_secs(12)).await;
    let _slow = SlowMotion::begin();
    kubelet.resume().await.unwrap();
    let since = tokio::time::Instant::now();
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    assert!(since.elapsed() < Duration::from_secs(1), "the pause between attempts must not count");
    assert_eq!(status(&plugin, |s| s.waiting.is_none()).await.healthy, 2);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_starts_before_kubelet_is_known_as_soon_as_kubelet_is_there() {
    let node = Node::new(vfs("a", 0..2));
    let plugin = node.plugin(Registration::Kubelet);
    let missing = status(&plugin, |s| s.waiting.is_some()).await.waiting.unwrap();
    assert!(missing.contains("device-plugins: no such folder; is kubelet installed"), "{missing}");
    let kubelet = node.kubelet().await;
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_refused_registration_is_tried_again_and_shown() {
    let node = Node::new(vfs("a", 0..2));
    let kubelet = node.kubelet().await;
    kubelet.refuse(6, "not today");
    let plugin = node.plugin(Registration::Kubelet);
    let refused = status(&plugin, |s| s.waiting.as_ref().is_some_and(|w| w.contains("refuses"))).await;
    assert_eq!(refused.waiting.unwrap(), "kubelet refuses culvert.io/a: not today");
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    assert_eq!(kubelet.resource(A).unwrap().registrations, 1);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_list_that_kubelet_drops_is_offered_again() {
    let node = Node::new(vfs("a", 0..2));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    for round in 1..=3 {
        let resource = kubelet.wait(A, PATIENCE, |r| all(2)(r) && r.registrations == round).await.unwrap();
        assert_eq!(resource.history.last(), Some(&2));
        kubelet.hang_up(A);
    }
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_removed_socket_comes_back_and_no_capacity_is_lost() {
    let node = Node::new(vfs("a", 0..2));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    let socket = node.path("device-plugins/culvert-culvert.io_a.sock");
    std::fs::remove_file(&socket).unwrap();
    let resource = kubelet.wait(A, PATIENCE, |r| r.registrations == 2 && r.lists == 2).await.unwrap();
    assert!(socket.exists());
    assert_eq!(resource.history, [2, 2]);
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_plugin_that_was_killed_leaves_nothing_that_stops_the_next() {
    let node = Node::new(vfs("a", 0..2));
    let kubelet = node.kubelet().await;
    for stale in ["culvert-culvert.io_a.sock", "culvert-culvert.io_gone.sock"] {
        drop(std::os::unix::net::UnixListener::bind(node.path("device-plugins").join(stale)).unwrap());
    }
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    assert!(!node.path("device-plugins/culvert-culvert.io_gone.sock").exists());
    plugin.shutdown().await;
}

#[tokio::test(start_paused = true)]
async fn a_kubelet_that_finds_plugins_by_itself_needs_no_help_after_a_restart() {
    let _slow = SlowMotion::begin();
    let node = Node::new(vfs("a", 0..2));
    std::fs::create_dir(node.path("plugins_registry")).unwrap();
    let plugin = node.plugin(Registration::Auto);
    let early = status(&plugin, |s| s.waiting.is_some()).await.waiting.unwrap();
    assert!(early.starts_with("kubelet has not yet found"), "{early}");
    let mut kubelet = node.kubelet().await;
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    assert_eq!(std::fs::read_dir(kubelet.device_plugins()).unwrap().count(), 1, "only kubelet.sock");
    status(&plugin, |s| s.waiting.is_none()).await;
    kubelet.restart().await.unwrap();
    kubelet.wait(A, Duration::from_secs(1), all(2)).await.unwrap();
    assert_eq!(kubelet.allocate("default/x", A, 1).await.unwrap().ids.len(), 1);
    plugin.shutdown().await;
    assert_eq!(std::fs::read_dir(kubelet.plugins_registry()).unwrap().count(), 0);
}

#[tokio::test]
async fn a_kubelet_that_found_the_plugin_may_refuse_it_and_change_its_mind() {
    let node = Node::new(vfs("a", 0..2));
    std::fs::create_dir(node.path("plugins_registry")).unwrap();
    let kubelet = node.kubelet().await;
    // Each costs half a second, in which kubelet might come back by itself.
    kubelet.refuse(2, "not today");
    let plugin = node.plugin(Registration::Watcher);
    let refused = status(&plugin, |s| s.waiting.as_ref().is_some_and(|w| w.contains("refuses"))).await;
    assert_eq!(refused.waiting.unwrap(), "kubelet refuses culvert.io/a: not today");
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    status(&plugin, |s| s.waiting.is_none()).await;
    plugin.shutdown().await;
}

#[tokio::test]
async fn a_dropped_plugin_ends_like_one_that_was_shut_down() {
    let node = Node::new(vfs("a", 0..2));
    let kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    kubelet.wait(A, PATIENCE, all(2)).await.unwrap();
    drop(plugin);
    kubelet.wait(A, PATIENCE, |r| !r.connected).await.unwrap();
    let deadline = Instant::now() + PATIENCE;
    while node.path("device-plugins/culvert-culvert.io_a.sock").exists() {
        assert!(Instant::now() < deadline, "the socket is still there");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

#[tokio::test]
async fn whatever_kubelet_does_the_plugin_is_known_again() {
    // A fixed sequence of everything that can go wrong, with and without time to recover in between.
    let mut dice = 7_u32;
    let mut roll = |sides: u32| {
        dice = dice.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (dice >> 16) % sides
    };
    let node = Node::new(vfs("a", 0..4));
    let mut kubelet = node.kubelet().await;
    let plugin = node.plugin(Registration::Kubelet);
    for _ in 0..40 {
        for _ in 0..=roll(3) {
            match roll(6) {
                0 => kubelet.restart().await.unwrap(),
                1 => {
                    kubelet.stop().await;
                    tokio::time::sleep(Duration::from_millis(u64::from(roll(40)))).await;
                    kubelet.resume().await.unwrap();
                }
                2 => kubelet.hang_up(A),
                3 => kubelet.refuse(roll(4) as usize, "not now"),
                4 => drop(std::fs::remove_file(node.path("device-plugins/culvert-culvert.io_a.sock"))),
                _ => tokio::time::sleep(Duration::from_millis(u64::from(roll(30)))).await,
            }
        }
        kubelet.wait(A, PATIENCE, all(4)).await.unwrap();
        kubelet.allocate_ids(A, &["0000:03:02.1".to_owned()]).await.unwrap();
    }
    plugin.shutdown().await;
}
