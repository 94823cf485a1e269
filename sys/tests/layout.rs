//! C's and Rust's idea of an mbuf are the same.

use std::mem::{MaybeUninit, align_of, offset_of, size_of};

use dpdk_sys::{rte_mbuf, shim_layout, shim_mbuf_layout};

fn layout_in_c() -> shim_layout {
    let mut layout = MaybeUninit::uninit();
    // SAFETY: the function fills the whole struct it is given.
    unsafe {
        shim_mbuf_layout(layout.as_mut_ptr());
        layout.assume_init()
    }
}

#[test]
fn an_mbuf_is_two_cache_lines_in_c_and_in_rust() {
    let c = layout_in_c();
    assert_eq!(c.size, 128);
    assert_eq!(size_of::<rte_mbuf>(), c.size);
    assert_eq!(align_of::<rte_mbuf>(), c.align);
}

#[test]
fn the_fields_of_an_mbuf_lie_where_c_has_them() {
    let c = layout_in_c();
    for (field, rust, c) in [
        ("buf_addr", offset_of!(rte_mbuf, buf_addr), c.buf_addr),
        ("data_off", offset_of!(rte_mbuf, data_off), c.data_off),
        ("refcnt", offset_of!(rte_mbuf, refcnt), c.refcnt),
        ("nb_segs", offset_of!(rte_mbuf, nb_segs), c.nb_segs),
        ("port", offset_of!(rte_mbuf, port), c.port),
        ("ol_flags", offset_of!(rte_mbuf, ol_flags), c.ol_flags),
        ("packet_type", offset_of!(rte_mbuf, packet_type), c.packet_type),
        ("pkt_len", offset_of!(rte_mbuf, pkt_len), c.pkt_len),
        ("data_len", offset_of!(rte_mbuf, data_len), c.data_len),
        ("vlan_tci", offset_of!(rte_mbuf, vlan_tci), c.vlan_tci),
        ("rss_hash", offset_of!(rte_mbuf, rss_hash), c.rss_hash),
        ("buf_len", offset_of!(rte_mbuf, buf_len), c.buf_len),
        ("pool", offset_of!(rte_mbuf, pool), c.pool),
        ("tx_offload", offset_of!(rte_mbuf, tx_offload), c.tx_offload),
    ] {
        assert_eq!(rust, c, "offset of {field}");
    }
}

#[test]
fn the_library_loaded_is_of_the_release_compiled_against() {
    // SAFETY: both functions only return constants; the text lives as long as the library.
    let (compiled, loaded) =
        unsafe { (dpdk_sys::shim_compiled_version(), std::ffi::CStr::from_ptr(dpdk_sys::rte_version())) };
    let release = format!("DPDK {:02}.{:02}.", compiled >> 24, (compiled >> 16) & 0xff);
    assert!(loaded.to_string_lossy().starts_with(&release), "{loaded:?} is not {release}*");
}
