use super::super::model::{create_vfs, pf};
use super::*;

fn machine() -> Observed {
    let mut pfs = vec![pf("0000:03:00.0", 7), pf("0000:07:00.0", 7), pf("0001:07:00.0", 7)];
    create_vfs(&mut pfs[0], 2);
    pfs[2].pf.interfaces[0].name = "other".to_owned();
    Observed { pfs, ..Observed::default() }
}

fn address(name: &str) -> Result<String, NameError> {
    find(&machine(), name).map(|found| found.address().to_string())
}

#[test]
fn a_pf_and_a_vf_have_several_names_each() {
    let machine = machine();
    let vf = &machine.pfs[0].pf.vfs[1];
    let (vf_address, vf_name) = (vf.pci.address.to_string(), vf.interface.as_ref().unwrap().name.clone());
    let pf_name = machine.pfs[0].pf.interfaces[0].name.clone();
    for name in ["0000:03:00.0", "03:00.0", &pf_name] {
        assert_eq!(address(name).as_deref(), Ok("0000:03:00.0"), "{name}");
    }
    for name in [&vf_address, &vf_address[5..], &vf_name, "03:00.0/1", &format!("{pf_name}/1")] {
        assert_eq!(address(name).as_deref(), Ok(vf_address.as_str()), "{name}");
    }
}

#[test]
fn a_name_that_means_two_functions_is_refused_with_both_addresses() {
    let error = address("07:00.0").unwrap_err();
    assert!(matches!(error, NameError::Several { .. }), "{error}");
    let text = error.to_string();
    assert!(text.contains("0000:07:00.0, 0001:07:00.0"), "{text}");
    assert_eq!(address("0001:07:00.0").as_deref(), Ok("0001:07:00.0"));
}

#[test]
fn names_that_mean_nothing_say_what_there_is() {
    for name in ["", "/", "eth9", "0000:05:00.0", "eth9/0", "07", "03:00.0/1/1"] {
        assert!(address(name).is_err(), "{name:?}");
    }
    let error = address("03:00.0/2").unwrap_err().to_string();
    assert!(error.contains("0000:03:00.0 has no VF 2; it has 2 VFs"), "{error}");
    // A VF has no VFs.
    let vf = machine().pfs[0].pf.vfs[0].pci.address;
    assert!(matches!(address(&format!("{vf}/0")), Err(NameError::Unknown(_))));
}
