//! The frame itself, without Culvert: when this fails, the fault is not Culvert's.

use crate::frame::{Case, Context, Outcome, Place::Netns};
use crate::net::{self, Ping};
use crate::topology::{Family, Far, POD_PORT, Pod, pod_address};

pub(super) const CASES: &[Case] =
    &[Case { name: "two_kernels_reach_each_other_over_vxlan", place: Netns, run: kernels }];

fn kernels(context: &Context) -> Outcome {
    let (near, far) = (Far::create(1, Family::V4)?, Far::create(2, Family::V4)?);
    let wire = net::Netns::create("wire")?;
    wire.ip("link add cvup0 type veth peer name other")?;
    near.take_wire(&wire)?;
    wire.ip("link set other name cvup0")?;
    far.take_wire(&wire)?;
    let a = Pod::far(context, &near, "pod-a", pod_address(1, 0))?;
    let c = Pod::far(context, &far, "pod-c", pod_address(2, 0))?;
    c.wait_until_serving()?;
    for address in c.addresses.both() {
        Ping::to(address).answered(a.netns())?;
        Ping::to(address).unfragmented(1450).answered(a.netns())?;
        net::http::download(a.netns(), (address, POD_PORT).into(), 1 << 20)?;
    }
    Ok(())
}
