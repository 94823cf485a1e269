//! How a worker without packets rests.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Events taken at once; which they are does not matter.
const EVENTS: usize = 8;

/// What wakes a worker up: packets at descriptors that it polls, and the control thread.
#[derive(Debug)]
pub(super) struct Rest {
    epoll: Epoll,
    bell: Arc<Bell>,
}

/// With what the control thread wakes a worker up.
#[derive(Debug)]
pub(super) struct Bell(EventFd);

impl Bell {
    pub(super) fn new() -> io::Result<Arc<Self>> {
        Ok(Arc::new(Self(EventFd::from_flags(EfdFlags::EFD_CLOEXEC | EfdFlags::EFD_NONBLOCK)?)))
    }

    /// Wakes the worker, or keeps it from resting next time.
    pub(super) fn ring(&self) {
        // Fails only when it has been rung 2^64 times.
        let _ = self.0.write(1);
    }
}

impl Rest {
    pub(super) fn new(bell: Arc<Bell>) -> io::Result<Self> {
        let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC)?;
        epoll.add(&bell.0, EpollEvent::new(EpollFlags::EPOLLIN, 0))?;
        Ok(Self { epoll, bell })
    }

    /// Packets at this descriptor end the rest from now on.
    pub(super) fn watch(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, 0))?)
    }

    /// They do no longer.
    pub(super) fn forget(&self, descriptor: BorrowedFd<'_>) {
        // One that is closed has been forgotten by the kernel.
        let _ = self.epoll.delete(descriptor);
    }

    /// Sleeps until a packet comes, the control thread wants something, or the time is over.
    pub(super) fn rest(&self, most: Duration) {
        let mut events = [EpollEvent::empty(); EVENTS];
        let most = EpollTimeout::try_from(most).unwrap_or(EpollTimeout::ZERO);
        // Interrupted or not, the worker looks around next.
        let _ = self.epoll.wait(&mut events, most);
        let _ = self.bell.0.read();
    }
}

#[cfg(test)]
mod tests {
    use std::os::fd::AsFd;
    use std::time::Instant;

    use nix::unistd::{pipe, write};

    use super::*;

    const LONG: Duration = Duration::from_secs(20);

    fn rest() -> (Rest, Arc<Bell>) {
        let bell = Bell::new().unwrap();
        (Rest::new(Arc::clone(&bell)).unwrap(), bell)
    }

    #[test]
    fn a_ring_a_packet_or_time_ends_the_rest() {
        let (rest, bell) = rest();
        let (reader, writer) = pipe().unwrap();
        let begin = Instant::now();
        bell.ring();
        rest.rest(LONG);
        rest.watch(reader.as_fd()).unwrap();
        write(&writer, b"packet").unwrap();
        rest.rest(LONG);
        assert!(begin.elapsed() < LONG);
        rest.forget(reader.as_fd());
        let begin = Instant::now();
        rest.rest(Duration::from_millis(5));
        assert!(
            begin.elapsed() >= Duration::from_millis(5),
            "a ring counts once, a forgotten descriptor not at all"
        );
    }
}
