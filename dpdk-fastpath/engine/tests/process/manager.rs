//! The service manager keeps what a keeper has, and gives it back to the next one.

use std::collections::BTreeMap;
use std::io::IoSliceMut;
use std::mem::MaybeUninit;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;

use nix::fcntl::{FcntlArg, fcntl};
use nix::unistd::close;
use rustix::net::{RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, recvmsg};

use crate::fastpath::{BINARY, FastPath};
use crate::pods::{Pod, tables};
use crate::restart::{Stopper, longest_gap};
use crate::{Case, within};

pub(crate) fn cases() -> Vec<Case> {
    let name = "a_service_manager_gives_a_new_keeper_back_what_the_killed_one_had";
    vec![Case { name, root: true, device: None, body: given_back }]
}

/// What systemd does with FDSTORE and FDSTOREREMOVE (sd_notify(3)).
#[derive(Default)]
struct Manager {
    store: Mutex<BTreeMap<String, Vec<OwnedFd>>>,
    /// How often it was told that the program is ready.
    ready: AtomicU32,
    stop: AtomicBool,
}

impl Manager {
    fn attend(&self, socket: &UnixDatagram) {
        while !self.stop.load(Ordering::Relaxed) {
            let mut text = [0; 4096];
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(64))];
            let mut control = RecvAncillaryBuffer::new(&mut space);
            let (mut parts, flags) = ([IoSliceMut::new(&mut text)], RecvFlags::CMSG_CLOEXEC);
            let Ok(received) = recvmsg(socket, &mut parts, &mut control, flags) else { continue };
            let text = str::from_utf8(&text[..received.bytes]).unwrap();
            let name = || text.lines().find_map(|line| line.strip_prefix("FDNAME=")).unwrap().to_owned();
            let mut store = self.store.lock().unwrap();
            match text.lines().next() {
                Some("FDSTORE=1") => {
                    for message in control.drain() {
                        if let RecvAncillaryMessage::ScmRights(descriptors) = message {
                            store.entry(name()).or_default().extend(descriptors);
                        }
                    }
                }
                Some("FDSTOREREMOVE=1") => drop(store.remove(&name())),
                Some("READY=1") => drop(self.ready.fetch_add(1, Ordering::Relaxed)),
                _ => {}
            }
        }
    }

    /// Waits until the program has said so often that it is ready, and then what is kept is this.
    fn wait_until_ready(&self, times: u32) {
        let has_short_cut = crate::shortcut::has_tcx();
        let mut names = [&ALL[..], if has_short_cut { &SHORT_CUT } else { &[] }].concat();
        names.sort_unstable();
        within(20, "it says that it is ready, and has all kept", || {
            let store = self.store.lock().unwrap();
            let all = store.keys().map(String::as_str).eq(names.iter().copied());
            (self.ready.load(Ordering::Relaxed) == times && all).then_some(())
        });
    }
}

const ALL: [&str; 6] = ["flows", "ports", "tables", "tap.cvt-a", "tap.cvt-b", "tap.cvtup0"];

/// What is kept besides where there is a short cut.
const SHORT_CUT: [&str; 4] =
    ["shortcut.globals", "shortcut.opened.1", "shortcut.pod.cvt-a", "shortcut.pod.cvt-b"];

fn given_back() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("notify");
    let socket = UnixDatagram::bind(&path).unwrap();
    socket.set_read_timeout(Some(Duration::from_millis(50))).unwrap();
    let manager = Manager::default();
    std::thread::scope(|scope| {
        let _stopper = Stopper(&manager.stop);
        scope.spawn(|| manager.attend(&socket));
        started_by(&manager, &path);
    });
}

fn started_by(manager: &Manager, path: &Path) {
    let mut fast_path = FastPath::launch("", |netns, config| {
        let mut command = netns.command(BINARY);
        command.arg("--config").arg(config).env("NOTIFY_SOCKET", path);
        command
    });
    fast_path.replace(tables(1, &["10.244.1.3"])).unwrap();
    let (a, b) = (Pod::attach(&fast_path, "cvt-a", 2), Pod::attach(&fast_path, "cvt-b", 3));
    let gone = Pod::attach(&fast_path, "cvt-c", 4);
    assert!(fast_path.detach("cvt-c").unwrap());
    manager.wait_until_ready(1);
    within(5, "the interface has left the pod", || {
        (!gone.netns.ip("-o link").contains("eth0")).then_some(())
    });

    let gap = longest_gap(&a, &b, || {
        // As descriptors 3 and on, with their names.
        let mut script = "export LISTEN_PID=$$; exec \"$0\" --config \"$1\"".to_owned();
        let (mut names, mut copies) = (Vec::new(), Vec::new());
        for (name, descriptors) in &*manager.store.lock().unwrap() {
            for descriptor in descriptors {
                // Above those that the program is to find them at.
                let copy = fcntl(descriptor, FcntlArg::F_DUPFD(100)).unwrap();
                script += &format!(" {}<&{copy} {copy}<&-", 3 + names.len());
                names.push(name.clone());
                copies.push(copy);
            }
        }
        fast_path.kill_and_launch(|netns, config| {
            let mut command = netns.command("bash");
            command.args(["-c", &script, BINARY]).arg(config).env("NOTIFY_SOCKET", path);
            command.env("LISTEN_FDS", names.len().to_string()).env("LISTEN_FDNAMES", names.join(":"));
            command
        });
        // Whoever is started later would have them, too.
        copies.into_iter().for_each(|copy| close(copy).unwrap());
        let info = fast_path.info();
        assert_eq!((info.revision, info.synced), (1, true));
        // It is entered while packets go on.
        within(5, "the flow was entered", || (fast_path.info().flows == 1).then_some(()));
        assert_eq!(fast_path.ports().len(), 3);
    });
    eprintln!("service manager: without a byte for {gap:?}");
    assert!(gap < Duration::from_secs(10), "{gap:?}");
    manager.wait_until_ready(2);
    let flows = manager.store.lock().unwrap()["flows"].len();
    assert_eq!(flows, 1, "the memory of flows in place of the one before");
    drop((fast_path, a, b));
}
