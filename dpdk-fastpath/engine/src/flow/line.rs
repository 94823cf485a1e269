//! The memory of a record.

use std::sync::atomic::AtomicU64;

use zerocopy::FromZeros;

macro_rules! line {
    ($(#[$attr:meta])* $name:ident, $align:literal, $words:literal) => {
        $(#[$attr])*
        #[derive(Debug, FromZeros)]
        #[repr(C, align($align))]
        pub struct $name([AtomicU64; $words]);

        impl AsRef<[AtomicU64]> for $name {
            #[inline]
            fn as_ref(&self) -> &[AtomicU64] {
                &self.0
            }
        }

        const _: () = assert!(size_of::<$name>() == $align);
    };
}

impl Line4 {
    /// The words.
    #[inline(always)]
    pub(super) fn words(&self) -> &[AtomicU64; 8] {
        &self.0
    }
}

line! {
    /// One cache line: two keys of 16 bytes and four words.
    Line4, 64, 8
}
line! {
    /// Two cache lines: two keys of 40 bytes, four words, and room to grow.
    Line6, 128, 16
}
