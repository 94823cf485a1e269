use super::*;

/// Not ECN-capable, ECT(1), ECT(0), congestion experienced: in the order of their numbers.
const CODEPOINTS: std::ops::Range<u8> = 0..4;
const CE: u8 = 3;

const ANY_DSCP: [Dscp; 4] = [Dscp::Pipe(0), Dscp::Pipe(46), Dscp::Copy, Dscp::Uniform];

fn marking(dscp: Dscp, ecn: Ecn) -> Marking {
    Marking { dscp, ecn, ..Marking::default() }
}

#[test]
fn all_sixteen_combinations_of_congestion_marks_leave_the_tunnel_as_rfc_6040_says() {
    // Rows: inner not-ECT, ECT(1), ECT(0), CE. Columns: outer the same (figure 4).
    let table = [
        [Some(0), Some(0), Some(0), None],
        [Some(1), Some(1), Some(1), Some(3)],
        [Some(2), Some(1), Some(2), Some(3)],
        [Some(3), Some(3), Some(3), Some(3)],
    ];
    let (inner_dscp, outer_dscp) = (0xb8, 0x20);
    for (inner, row) in CODEPOINTS.zip(table) {
        for (outer, wanted) in CODEPOINTS.zip(row) {
            for dscp in ANY_DSCP {
                let kept = if dscp == Dscp::Uniform { outer_dscp } else { inner_dscp };
                // The egress is the same, whatever the mode of the ingress (section 4.2).
                for ecn in [Ecn::Normal, Ecn::Compatibility] {
                    assert_eq!(
                        marking(dscp, ecn).inner(inner_dscp | inner, outer_dscp | outer),
                        wanted.map(|ecn| kept | ecn),
                        "inner {inner}, outer {outer}, {dscp:?}, {ecn:?}"
                    );
                }
            }
            assert_eq!(inner_traffic_class(0xb8 | inner, 0x20 | outer), wanted.map(|ecn| 0xb8 | ecn));
        }
    }
}

#[test]
fn outer_packets_have_the_mark_of_the_inner_one_or_none_in_compatibility_mode() {
    for inner in CODEPOINTS {
        for dscp in ANY_DSCP {
            let outer_dscp = match dscp {
                Dscp::Pipe(dscp) => dscp << 2,
                Dscp::Copy | Dscp::Uniform => 0xb8,
            };
            assert_eq!(marking(dscp, Ecn::Normal).outer(0xb8 | inner), outer_dscp | inner);
            assert_eq!(marking(dscp, Ecn::Compatibility).outer(0xb8 | inner), outer_dscp);
        }
    }
}

#[test]
fn congestion_in_the_underlay_reaches_every_sender_that_can_understand_it() {
    for sent in CODEPOINTS {
        for dscp in ANY_DSCP {
            let normal = marking(dscp, Ecn::Normal);
            let outer = normal.outer(sent);
            // A router of the underlay marks only what is ECN-capable.
            let marked = if outer & 3 == 0 { outer } else { outer | CE };
            let arrived = normal.inner(sent, marked).map(|class| class & 3);
            assert_eq!(arrived, Some(if sent == 0 { 0 } else { CE }));
        }
    }
}

#[test]
fn a_class_that_the_underlay_changed_arrives_in_the_uniform_model_only() {
    let inner = 0x28;
    for (dscp, arrived) in [(Dscp::Pipe(10), inner), (Dscp::Copy, inner), (Dscp::Uniform, 0x40)] {
        assert_eq!(marking(dscp, Ecn::Normal).inner(inner, 0x40), Some(arrived), "{dscp:?}");
    }
}

proptest! {
    #[test]
    fn a_packet_that_the_underlay_leaves_alone_leaves_the_tunnel_as_it_went_in(
        marking in any_marking(),
        class: u8,
    ) {
        let outer = marking.outer(class);
        prop_assert_eq!(marking.inner(class, outer), Some(class));
    }
}
