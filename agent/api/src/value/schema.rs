//! JSON schemas of value types: what a configuration file may hold.

use std::borrow::Cow;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::{LinkState, Mac, Mtu, PoolName, Rate, VlanId, VlanProtocol, VlanQos};

macro_rules! schemas {
    ($($name:ident: $schema:tt;)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema(_: &mut SchemaGenerator) -> Schema {
                json_schema!($schema)
            }
        }
    )*};
}

schemas! {
    VlanId: { "type": "integer", "minimum": Self::MIN.get(), "maximum": Self::MAX.get() };
    VlanQos: { "type": "integer", "minimum": Self::MIN.get(), "maximum": Self::MAX.get() };
    Rate: { "type": "integer", "minimum": Self::MIN.get(), "maximum": Self::MAX.get() };
    Mtu: { "type": "integer", "minimum": Self::MIN.get(), "maximum": Self::MAX.get() };
    // The first octet is even: no multicast.
    Mac: { "type": "string", "pattern": "^[0-9a-fA-F][02468aceACE]([:-][0-9a-fA-F]{2}){5}$" };
    PoolName: { "type": "string", "pattern": "^[a-zA-Z0-9]([a-zA-Z0-9_-]{0,61}[a-zA-Z0-9])?$" };
    LinkState: { "enum": ["auto", "enable", "disable"] };
    VlanProtocol: { "enum": ["802.1q", "802.1Q", "802.1ad", "802.1AD"] };
}
