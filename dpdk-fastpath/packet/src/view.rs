//! The shape that all checked views share.

/// What a header's check found: where its options and its payload end, counted from its first byte.
pub(crate) struct Extent {
    /// End of the options, which begin after the fixed header.
    pub(crate) header: usize,
    /// End of the payload.
    pub(crate) total: usize,
}

/// Defines a view over a fixed header, its options and its payload. `$check` gets the fixed header and the
/// number of bytes there are, and must return an extent with `size_of::<$header>() <= header <= total <=
/// bytes`.
macro_rules! view {
    ($(#[$doc:meta])* $view:ident: $header:ty, $truncated:expr, $check:expr) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy)]
        pub struct $view<'a> {
            header: &'a $header,
            options: &'a [u8],
            payload: &'a [u8],
        }

        impl<'a> $view<'a> {
            /// Checks the header at the front of `bytes`. What follows its payload is ignored.
            #[inline]
            pub fn new(bytes: &'a [u8]) -> Result<Self, $crate::Malformed> {
                let Ok((header, _)) = <$header as zerocopy::FromBytes>::ref_from_prefix(bytes) else {
                    return Err($truncated);
                };
                let extent: $crate::view::Extent = $check(header, bytes.len())?;
                let (head, payload) = bytes[..extent.total].split_at(extent.header);
                Ok(Self { header, options: &head[size_of::<$header>()..], payload })
            }

            /// What follows the fixed header and belongs to it; empty where the protocol has no options.
            #[inline]
            pub fn options(&self) -> &'a [u8] {
                self.options
            }

            /// What the header is the header of.
            #[inline]
            pub fn payload(&self) -> &'a [u8] {
                self.payload
            }
        }

        impl std::ops::Deref for $view<'_> {
            type Target = $header;

            #[inline]
            fn deref(&self) -> &$header {
                self.header
            }
        }
    };
}

/// Defines a view as [`view!`] does, and its mutable twin.
macro_rules! views {
    ($(#[$doc:meta])* $view:ident, $view_mut:ident: $header:ty, $truncated:expr, $check:expr) => {
        $crate::view::view! { $(#[$doc])* $view: $header, $truncated, $check }

        #[doc = concat!("The mutable twin of [`", stringify!($view), "`].")]
        #[derive(Debug)]
        pub struct $view_mut<'a> {
            header: &'a mut $header,
            options: &'a mut [u8],
            payload: &'a mut [u8],
        }

        impl<'a> $view_mut<'a> {
            /// Checks the header at the front of `bytes`. What follows its payload is ignored.
            #[inline]
            pub fn new(bytes: &'a mut [u8]) -> Result<Self, $crate::Malformed> {
                let bytes_len = bytes.len();
                let Ok((header, rest)) = <$header as zerocopy::FromBytes>::mut_from_prefix(bytes) else {
                    return Err($truncated);
                };
                let extent: $crate::view::Extent = $check(header, bytes_len)?;
                let (options, payload) = rest[..extent.total - size_of::<$header>()]
                    .split_at_mut(extent.header - size_of::<$header>());
                Ok(Self { header, options, payload })
            }

            /// What follows the fixed header and belongs to it; empty where the protocol has no options.
            #[inline]
            pub fn options_mut(&mut self) -> &mut [u8] {
                self.options
            }

            /// What the header is the header of.
            #[inline]
            pub fn payload_mut(&mut self) -> &mut [u8] {
                self.payload
            }
        }

        impl std::ops::Deref for $view_mut<'_> {
            type Target = $header;

            #[inline]
            fn deref(&self) -> &$header {
                self.header
            }
        }

        impl std::ops::DerefMut for $view_mut<'_> {
            #[inline]
            fn deref_mut(&mut self) -> &mut $header {
                self.header
            }
        }
    };
}

/// The derives that let a header be read from and written to bytes in place.
macro_rules! wire {
    ($(#[$attr:meta])* pub struct $name:ident { $($(#[$fattr:meta])* $field:ident: $ty:ty,)* }) => {
        $(#[$attr])*
        #[derive(
            Debug, Clone, Copy, PartialEq, Eq,
            zerocopy::FromBytes, zerocopy::IntoBytes, zerocopy::KnownLayout, zerocopy::Immutable,
            zerocopy::Unaligned,
        )]
        #[repr(C)]
        pub struct $name { $($(#[$fattr])* pub(crate) $field: $ty,)* }

        impl $name {
            /// Length of the fixed header in bytes.
            pub const LEN: usize = size_of::<Self>();
        }
    };
}

pub(crate) use {view, views, wire};

#[cfg(test)]
mod tests;
