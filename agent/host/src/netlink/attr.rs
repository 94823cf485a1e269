//! Attributes of netlink messages: a length and a type of 16 bits each, then the value, padded to four bytes
//! (`struct nlattr` of `linux/netlink.h`). Numbers are in host order unless said otherwise.

/// Flags in the upper two bits of a type: nested, and network byte order.
const TYPE_MASK: u16 = 0x3fff;
const HEADER: usize = 4;
const ALIGN: usize = 4;

/// Attributes that are being written.
#[derive(Debug, Default)]
pub(crate) struct Attributes(Vec<u8>);

impl Attributes {
    /// Begins after the family's own header.
    pub(crate) fn after(header: &[u8]) -> Self {
        Self(header.to_vec())
    }

    /// Adds an attribute with a value of less than 64 KiB.
    pub(crate) fn put(&mut self, kind: u16, value: &[u8]) {
        let length = (HEADER + value.len()) as u16;
        self.0.extend_from_slice(&length.to_ne_bytes());
        self.0.extend_from_slice(&kind.to_ne_bytes());
        self.0.extend_from_slice(value);
        self.0.resize(self.0.len().next_multiple_of(ALIGN), 0);
    }

    /// Adds an attribute whose value is 32-bit numbers: how the kernel's structures of them look.
    pub(crate) fn put_u32s(&mut self, kind: u16, numbers: &[u32]) {
        let value: Vec<u8> = numbers.iter().flat_map(|n| n.to_ne_bytes()).collect();
        self.put(kind, &value);
    }

    /// Adds a text that ends with a zero byte.
    pub(crate) fn put_text(&mut self, kind: u16, text: &str) {
        self.put(kind, &[text.as_bytes(), &[0]].concat());
    }

    /// Adds an attribute that holds attributes.
    pub(crate) fn nest(&mut self, kind: u16, fill: impl FnOnce(&mut Self)) {
        let mut inner = Self::default();
        fill(&mut inner);
        self.put(kind, &inner.0);
    }

    /// The message's payload.
    pub(crate) fn finish(self) -> Vec<u8> {
        self.0
    }
}

/// Reads attributes one by one, as (type, value); ends at the first that does not fit.
#[derive(Debug, Clone)]
pub(crate) struct Reader<'a>(&'a [u8]);

impl<'a> Reader<'a> {
    pub(crate) fn new(bytes: &'a [u8]) -> Self {
        Self(bytes)
    }

    /// After the first `header` bytes; none if there are fewer.
    pub(crate) fn after(header: usize, bytes: &'a [u8]) -> Self {
        Self(bytes.get(header..).unwrap_or_default())
    }

    /// The value of the first attribute of type `kind`.
    pub(crate) fn find(mut self, kind: u16) -> Option<&'a [u8]> {
        self.find_map(|(k, value)| (k == kind).then_some(value))
    }

    /// What is yet to be read.
    pub(crate) fn rest(&self) -> &'a [u8] {
        self.0
    }
}

impl<'a> Iterator for Reader<'a> {
    type Item = (u16, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        let length = usize::from(u16::from_ne_bytes(self.0.first_chunk().copied()?));
        let kind = u16::from_ne_bytes(self.0.get(2..4)?.try_into().ok()?) & TYPE_MASK;
        let value = self.0.get(HEADER..length)?;
        self.0 = self.0.get(length.next_multiple_of(ALIGN)..).unwrap_or_default();
        Some((kind, value))
    }
}

/// The number at the start of a value.
pub(crate) fn u32_at(value: &[u8], offset: usize) -> Option<u32> {
    Some(u32::from_ne_bytes(value.get(offset..)?.first_chunk().copied()?))
}

/// The number that a value of two bytes is.
pub(crate) fn u16_of(value: &[u8]) -> Option<u16> {
    Some(u16::from_ne_bytes(value.first_chunk().copied()?))
}

/// The number that a value of eight bytes is.
pub(crate) fn u64_of(value: &[u8]) -> Option<u64> {
    Some(u64::from_ne_bytes(value.first_chunk().copied()?))
}

/// The text that a value is, up to its zero byte.
pub(crate) fn text_of(value: &[u8]) -> String {
    let end = value.iter().position(|b| *b == 0).unwrap_or(value.len());
    String::from_utf8_lossy(&value[..end]).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn values_are_padded_to_four_bytes_and_their_length_is_without_padding() {
        let mut attributes = Attributes::after(&[9; 4]);
        attributes.put_text(3, "ab");
        attributes.nest(7, |inner| inner.put_u32s(1, &[5]));
        let bytes = attributes.finish();
        assert_eq!(bytes[..12], [9, 9, 9, 9, 7, 0, 3, 0, b'a', b'b', 0, 0]);
        assert_eq!(bytes[12..], [12, 0, 7, 0, 8, 0, 1, 0, 5, 0, 0, 0]);
        let inner = Reader::after(4, &bytes).find(7).unwrap();
        assert_eq!(u32_at(Reader::new(inner).find(1).unwrap(), 0), Some(5));
        assert_eq!(text_of(Reader::after(4, &bytes).find(3).unwrap()), "ab");
    }

    proptest! {
        #[test]
        fn any_bytes_are_read_to_an_end(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let total: usize = Reader::new(&bytes).map(|(_, value)| HEADER + value.len()).sum();
            prop_assert!(total <= bytes.len());
        }
    }
}
