//! Programs on interfaces (bpf(2)): a link puts one there for as long as anybody has its descriptor.

use std::io;
use std::os::fd::{AsFd, AsRawFd as _, BorrowedFd, FromRawFd as _, OwnedFd};

use nix::errno::Errno;

// `enum bpf_cmd`, `enum bpf_attach_type`, `enum bpf_link_type` and flags (linux/bpf.h).
const GET_INFO: libc::c_int = 15;
const QUERY: libc::c_int = 16;
const CREATE: libc::c_int = 28;
const UPDATE: libc::c_int = 29;
const INGRESS: u32 = 46;
const EGRESS: u32 = 47;
const TCX: u32 = 11;
const BEFORE: u32 = 1 << 3;

/// Links that one interface may have.
const MOST: usize = 64;

/// Which packets of an interface a program sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub(super) enum Hook {
    Ingress = INGRESS,
    Egress = EGRESS,
}

/// A program on an interface.
#[derive(Debug)]
pub(super) struct Attachment(OwnedFd);

/// `struct bpf_link_info` of tcx.
#[derive(Debug, Default)]
#[repr(C)]
struct Info {
    kind: u32,
    id: u32,
    program: u32,
    _unused: u32,
    interface: u32,
    hook: u32,
}

/// What the commands take: parts of `union bpf_attr`, of which the kernel reads as much as it is given.
#[repr(C)]
struct Create {
    program: u32,
    interface: u32,
    hook: u32,
    flags: u32,
    relative: u64,
    revision: u64,
}

#[repr(C)]
struct Update {
    link: u32,
    program: u32,
    flags: u32,
    before: u32,
}

#[repr(C)]
struct GetInfo {
    link: u32,
    size: u32,
    info: u64,
}

#[repr(C)]
struct Query {
    interface: u32,
    hook: u32,
    flags: u32,
    attach_flags: u32,
    programs: u64,
    count: u64,
    program_flags: u64,
    links: u64,
    link_flags: u64,
    revision: u64,
}

impl Attachment {
    /// Lets a program see the packets of an interface of the calling thread's network namespace, before others do.
    pub(super) fn new(program: BorrowedFd<'_>, interface: u32, hook: Hook) -> io::Result<Self> {
        let (program, hook) = (number(program), hook as u32);
        let mut asked = Create { program, interface, hook, flags: BEFORE, relative: 0, revision: 0 };
        // SAFETY: that is what this command takes.
        let link = unsafe { bpf(CREATE, &mut asked) }?;
        // SAFETY: the kernel has just opened it for us.
        Ok(Self(unsafe { OwnedFd::from_raw_fd(link) }))
    }

    /// In place of the program that is there, from one packet to the next.
    pub(super) fn replace(&self, program: BorrowedFd<'_>) -> io::Result<()> {
        let mut asked = Update { link: number(self.as_fd()), program: number(program), flags: 0, before: 0 };
        // SAFETY: that is what this command takes.
        unsafe { bpf(UPDATE, &mut asked) }.map(drop)
    }

    /// The index of the interface; `ENODEV` if that is gone.
    pub(super) fn interface(&self) -> io::Result<u32> {
        match self.info()?.interface {
            0 => Err(Errno::ENODEV.into()),
            index => Ok(index),
        }
    }

    /// Whether that is this interface of the calling thread's network namespace.
    pub(super) fn is_on(&self, interface: u32, hook: Hook) -> io::Result<bool> {
        let own = self.info()?;
        if (own.interface, own.hook) != (interface, hook as u32) {
            return Ok(false);
        }
        let (mut programs, mut links) = ([0_u32; MOST], [0_u32; MOST]);
        let mut asked = Query {
            interface,
            hook: hook as u32,
            flags: 0,
            attach_flags: 0,
            programs: programs.as_mut_ptr() as u64,
            count: MOST as u64,
            program_flags: 0,
            links: links.as_mut_ptr() as u64,
            link_flags: 0,
            revision: 0,
        };
        // SAFETY: that is what this command takes; it writes no more numbers than `count`, for which there is room, and both
        // arrays live until it returns.
        unsafe { bpf(QUERY, &mut asked) }?;
        Ok(links.contains(&own.id))
    }

    fn info(&self) -> io::Result<Info> {
        let mut info = Info::default();
        let mut asked = GetInfo {
            link: number(self.as_fd()),
            size: size_of::<Info>() as u32,
            info: (&raw mut info) as u64,
        };
        // SAFETY: that is what this command takes; it writes `size` bytes at most, of integers, before it returns.
        unsafe { bpf(GET_INFO, &mut asked) }?;
        if info.kind == TCX { Ok(info) } else { Err(Errno::EINVAL.into()) }
    }
}

impl From<OwnedFd> for Attachment {
    /// That another process has made.
    fn from(link: OwnedFd) -> Self {
        Self(link)
    }
}

impl AsFd for Attachment {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}

fn number(descriptor: BorrowedFd<'_>) -> u32 {
    descriptor.as_raw_fd().cast_unsigned()
}

/// Calls the kernel.
///
/// # Safety
/// `asked` is what the command takes, and addresses in it are good until this returns.
unsafe fn bpf<T>(command: libc::c_int, asked: &mut T) -> io::Result<libc::c_int> {
    let size = size_of::<T>() as libc::c_uint;
    // SAFETY: the kernel reads and writes `size` bytes at most, which are there; the rest is the caller's.
    let result = unsafe { libc::syscall(libc::SYS_bpf, command, &raw mut *asked, size) };
    Ok(Errno::result(result)? as libc::c_int)
}
