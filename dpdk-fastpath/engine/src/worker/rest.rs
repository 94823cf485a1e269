//! How a worker without packets rests.

use std::io;
use std::os::fd::BorrowedFd;
use std::sync::Arc;
use std::time::Duration;

use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::eventfd::{EfdFlags, EventFd};

/// Events taken at once. Those left over come first the next time.
const EVENTS: usize = 64;

/// What the bell's events are marked with.
const BELL: u64 = u64::MAX;

/// What receive interrupts are marked with: their queues are polled whenever the worker is awake.
const INTERRUPT: u64 = u64::MAX - 1;

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
        epoll.add(&bell.0, EpollEvent::new(EpollFlags::EPOLLIN, BELL))?;
        Ok(Self { epoll, bell })
    }

    /// Packets at this descriptor end the rest from now on, and are reported under this number.
    pub(super) fn watch(&self, descriptor: BorrowedFd<'_>, number: u32) -> io::Result<()> {
        Ok(self.epoll.add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN, number.into()))?)
    }

    /// Each packet's interrupt at this descriptor, which nobody reads, ends the rest from now on.
    pub(super) fn watch_interrupt(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        Ok(self
            .epoll
            .add(descriptor, EpollEvent::new(EpollFlags::EPOLLIN | EpollFlags::EPOLLET, INTERRUPT))?)
    }

    /// They do no longer.
    pub(super) fn forget(&self, descriptor: BorrowedFd<'_>) {
        // One that is closed has been forgotten by the kernel.
        let _ = self.epoll.delete(descriptor);
    }

    /// Sleeps until a packet comes, the control thread wants something, or the time is over. Tells `ready` the numbers of the
    /// descriptors that have packets. Whether there was anything.
    pub(super) fn rest(&self, most: Duration, mut ready: impl FnMut(u32)) -> bool {
        let mut events = [EpollEvent::empty(); EVENTS];
        let most = EpollTimeout::try_from(most).unwrap_or(EpollTimeout::ZERO);
        // Interrupted or not, the worker looks around next.
        let count = self.epoll.wait(&mut events, most).unwrap_or(0);
        for event in &events[..count] {
            match event.data() {
                BELL => drop(self.bell.0.read()),
                INTERRUPT => {}
                number => ready(number as u32),
            }
        }
        count > 0
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
        assert!(rest.rest(LONG, |_| unreachable!("no descriptor is watched")));
        rest.watch(reader.as_fd(), 7).unwrap();
        write(&writer, b"packet").unwrap();
        for most in [LONG, Duration::ZERO] {
            let mut ready = vec![];
            assert!(rest.rest(most, |number| ready.push(number)));
            assert_eq!(ready, [7], "as long as it is not read");
        }
        assert!(begin.elapsed() < LONG);
        rest.forget(reader.as_fd());
        let begin = Instant::now();
        assert!(!rest.rest(Duration::from_millis(5), |_| unreachable!("it is watched no longer")));
        assert!(
            begin.elapsed() >= Duration::from_millis(5),
            "a ring counts once, a forgotten descriptor not at all"
        );
    }
}
