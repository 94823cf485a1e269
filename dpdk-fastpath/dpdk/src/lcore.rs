//! Worker threads.
//!
//! Workers are ordinary `std` threads, pinned to their CPU and registered with EAL, instead of lcores that EAL starts
//! itself. So a worker's CPU is any the machine has (EAL's own lcore numbers end at `RTE_MAX_LCORE`, 128 in Debian),
//! workers can be started and stopped while the program runs, a panic comes back through `join`, and the thread that
//! started EAL stays free to run an async runtime. Registered threads get an lcore number, and with it per-lcore
//! mempool caches and per-queue fast paths; nothing Culvert uses distinguishes them from EAL's.

use std::fmt;
use std::io;
use std::marker::PhantomData;
use std::sync::mpsc;
use std::thread;

use crate::eal::Eal;
use crate::error::Errno;

/// Why a worker did not start.
#[derive(Debug, thiserror::Error)]
pub enum LcoreError {
    /// The CPU cannot be used.
    #[error("worker {worker}: cpu {cpu}: not online, or not allowed to this process")]
    CpuNotUsable {
        /// The worker.
        worker: String,
        /// The CPU.
        cpu: u32,
    },
    /// The kernel refused to pin the thread.
    #[error("worker {worker}: pin to cpu {cpu}")]
    Pin {
        /// The worker.
        worker: String,
        /// The CPU.
        cpu: u32,
        /// Why.
        source: io::Error,
    },
    /// EAL has no lcore number left, or another DPDK process is attached.
    #[error("worker {worker}: register with EAL: {errno}")]
    Register {
        /// The worker.
        worker: String,
        /// Why.
        errno: Errno,
    },
    /// The thread could not be started.
    #[error("worker {worker}: start a thread")]
    Thread {
        /// The worker.
        worker: String,
        /// Why.
        source: io::Error,
    },
}

/// What a worker knows of itself; stays on its thread.
#[derive(Debug)]
pub struct Lcore {
    id: u32,
    cpu: u32,
    socket: u32,
    /// The registration belongs to the thread.
    _not_send: PhantomData<*const ()>,
}

impl Lcore {
    /// Number among EAL's lcores: unique, small, free again when the worker ends.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The CPU it is pinned to.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// NUMA node of that CPU.
    pub fn socket(&self) -> u32 {
        self.socket
    }
}

/// A worker that runs.
pub struct Worker<T> {
    name: String,
    cpu: u32,
    /// None: it did not start, and `spawn` has said so.
    thread: thread::JoinHandle<Option<T>>,
}

impl<T> Worker<T> {
    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The CPU it is pinned to.
    pub fn cpu(&self) -> u32 {
        self.cpu
    }

    /// Whether it has ended.
    pub fn is_finished(&self) -> bool {
        self.thread.is_finished()
    }

    /// Waits for its end; an error holds its panic.
    pub fn join(self) -> thread::Result<T> {
        self.thread.join().map(|result| result.expect("spawn returns a worker only once it has started"))
    }
}

impl<T> fmt::Debug for Worker<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Worker({} on cpu {})", self.name, self.cpu)
    }
}

/// Starts a thread named `name` (the kernel shows 15 bytes) on `cpu`, and runs `body` there once it is pinned and
/// registered. Returns when it is, or why it is not. Nothing but the body stops it: give it a flag to look at.
pub fn spawn<T, F>(eal: &Eal, name: &str, cpu: u32, body: F) -> Result<Worker<T>, LcoreError>
where
    F: FnOnce(&Lcore) -> T + Send + 'static,
    T: Send + 'static,
{
    let worker = name.to_owned();
    let (ready, started) = mpsc::sync_channel(1);
    let eal = eal.clone();
    let thread = thread::Builder::new().name(worker.clone()).spawn({
        let worker = worker.clone();
        move || {
            let registration = pin(&worker, cpu).and_then(|()| Registration::new(&worker, eal));
            let (registration, outcome) = match registration {
                Ok(registration) => (Some(registration), Ok(())),
                Err(error) => (None, Err(error)),
            };
            // The receiver waits for exactly this message.
            let _ = ready.send(outcome);
            registration.map(|registration| body(&registration.lcore(cpu)))
        }
    });
    let thread = thread.map_err(|source| LcoreError::Thread { worker: worker.clone(), source })?;
    match started.recv() {
        Ok(Err(error)) => {
            // It ends by itself, and has nothing more to say.
            let _ = thread.join();
            Err(error)
        }
        // A closed channel would mean that it panicked before the body; join shows that.
        Ok(Ok(())) | Err(mpsc::RecvError) => Ok(Worker { name: worker, cpu, thread }),
    }
}

/// This thread, registered with EAL until dropped.
struct Registration {
    _eal: Eal,
}

impl Registration {
    fn new(worker: &str, eal: Eal) -> Result<Self, LcoreError> {
        // SAFETY: EAL is running, and this thread is not registered: it is new.
        if unsafe { dpdk_sys::rte_thread_register() } == 0 {
            return Ok(Self { _eal: eal });
        }
        // SAFETY: reads a variable of this thread.
        let errno = Errno(unsafe { dpdk_sys::shim_errno() });
        Err(LcoreError::Register { worker: worker.to_owned(), errno })
    }

    fn lcore(&self, cpu: u32) -> Lcore {
        // SAFETY: this thread is registered, so both are set.
        let (id, socket) = unsafe { (dpdk_sys::shim_lcore_id(), dpdk_sys::rte_socket_id()) };
        Lcore { id, cpu, socket, _not_send: PhantomData }
    }
}

impl Drop for Registration {
    fn drop(&mut self) {
        // SAFETY: registered by this thread (a Registration does not leave the closure it is made in); runs before the
        // Eal in it is dropped.
        unsafe { dpdk_sys::rte_thread_unregister() };
    }
}

fn pin(worker: &str, cpu: u32) -> Result<(), LcoreError> {
    set_affinity(cpu).map_err(|source| match source.raw_os_error() {
        Some(libc::EINVAL) => LcoreError::CpuNotUsable { worker: worker.to_owned(), cpu },
        _ => LcoreError::Pin { worker: worker.to_owned(), cpu, source },
    })
}

/// Whether this thread could run on `cpu`: it is online, and in the cpuset of the process.
pub(crate) fn usable(cpu: u32) -> bool {
    // Asking is not enough: a thread that is pinned already sees only its own CPU. So try, and go back.
    let mut before = no_cpus();
    // SAFETY: writes at most the size it is given.
    if unsafe { libc::sched_getaffinity(0, size_of_val(&before), &raw mut before) } != 0 {
        return false;
    }
    let usable = set_affinity(cpu).is_ok();
    // SAFETY: reads at most the size it is given.
    unsafe { libc::sched_setaffinity(0, size_of_val(&before), &raw const before) };
    usable
}

fn set_affinity(cpu: u32) -> io::Result<()> {
    let mut set = no_cpus();
    if cpu >= libc::CPU_SETSIZE as u32 {
        return Err(io::Error::from_raw_os_error(libc::EINVAL));
    }
    // SAFETY: the index is within the set.
    unsafe { libc::CPU_SET(cpu as usize, &mut set) };
    // SAFETY: reads at most the size it is given.
    match unsafe { libc::sched_setaffinity(0, size_of_val(&set), &raw const set) } {
        0 => Ok(()),
        _ => Err(io::Error::last_os_error()),
    }
}

fn no_cpus() -> libc::cpu_set_t {
    // SAFETY: a bit set; all zeroes is the empty set.
    unsafe { std::mem::zeroed() }
}
