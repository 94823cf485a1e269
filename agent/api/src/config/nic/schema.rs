//! The policy as a JSON schema: what editors check and complete by.

use std::borrow::Cow;

use schemars::generate::SchemaSettings;
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};

use super::selector::RawSelector;
use super::vfset::VfSet;
use super::{NicPolicy, PfSelector, RawNicPolicy, VfCount};

#[cfg(test)]
mod tests;

impl NicPolicy {
    /// JSON schema of the section `nic` (draft 2020-12). What it refuses is refused; what depends on several keys at once
    /// is beyond it.
    pub fn schema() -> serde_json::Value {
        let mut schema =
            SchemaSettings::draft2020_12().into_generator().into_root_schema_for::<RawNicPolicy>();
        schema.insert("title".to_owned(), "NIC policy of culvert-agent".into());
        schema.into()
    }
}

macro_rules! schemas {
    ($($name:ident($generator:pat) $body:block)*) => {$(
        impl JsonSchema for $name {
            fn schema_name() -> Cow<'static, str> {
                stringify!($name).into()
            }

            fn inline_schema() -> bool {
                true
            }

            fn json_schema($generator: &mut SchemaGenerator) -> Schema $body
        }
    )*};
}

schemas! {
    PfSelector(generator) {
        json_schema!({ "anyOf": [
            { "type": "string", "minLength": 1, "pattern": "^[a-zA-Z0-9._:*?\\[\\]-]+$" },
            generator.subschema_for::<RawSelector>(),
        ] })
    }
    VfCount(_) {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": u16::MAX },
            { "const": "max" },
        ] })
    }
    VfSet(_) {
        json_schema!({ "anyOf": [
            { "type": "integer", "minimum": 0, "maximum": u16::MAX },
            { "type": "string", "pattern": "^ *(all|[0-9]+ *(- *[0-9]* *)?(, *[0-9]+ *(- *[0-9]* *)?)*)$" },
        ] })
    }
}
