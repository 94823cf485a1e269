//! Reading keys of a JSON object one by one, so that errors name the key.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::error::CniError;

/// An object, and where it lies in the configuration.
#[derive(Debug, Clone, Copy)]
pub(super) struct Keys<'a> {
    map: Option<&'a Map<String, Value>>,
    /// `runtimeConfig.`, for errors.
    prefix: &'a str,
}

impl<'a> Keys<'a> {
    pub(super) fn of(map: &'a Map<String, Value>) -> Self {
        Self { map: Some(map), prefix: "" }
    }

    /// The object under `key`, empty if there is none; `prefix` is `key` with a dot.
    pub(super) fn object(self, key: &str, prefix: &'a str) -> Result<Self, CniError> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(Self { map: None, prefix }),
            Some(Value::Object(map)) => Ok(Self { map: Some(map), prefix }),
            Some(other) => {
                Err(CniError::config(format!("{}{key} {other}: must be an object or absent", self.prefix)))
            }
        }
    }

    /// The value under `key`. As other plugins take them, keys may be written in any case; the exact one counts first.
    pub(super) fn value(self, key: &str) -> Option<&'a Value> {
        let map = self.map?;
        let alike = || map.iter().find(|(k, _)| k.eq_ignore_ascii_case(key)).map(|(_, value)| value);
        map.get(key).or_else(alike)
    }

    /// The value under `key` as a `T`. Null and the empty text are as good as none.
    pub(super) fn get<T: DeserializeOwned>(self, key: &str) -> Result<Option<T>, CniError> {
        match self.value(key) {
            None | Some(Value::Null) => Ok(None),
            Some(Value::String(text)) if text.is_empty() => Ok(None),
            Some(value) => T::deserialize(value).map(Some).map_err(|e| self.error(key, &e.to_string())),
        }
    }

    /// The text under `key`; empty if there is none.
    pub(super) fn text(self, key: &str) -> Result<String, CniError> {
        Ok(self.get(key)?.unwrap_or_default())
    }

    /// The keys that are none of `known`.
    pub(super) fn unknown(self, known: &[&str]) -> Vec<String> {
        let keys = self.map.into_iter().flat_map(Map::keys);
        keys.filter(|key| !known.iter().any(|k| k.eq_ignore_ascii_case(key))).cloned().collect()
    }

    fn error(self, key: &str, reason: &str) -> CniError {
        let key = format!("{}{key}", self.prefix);
        // Many values name themselves.
        let named = reason.strip_prefix(&key).is_some_and(|rest| rest.starts_with([' ', ':']));
        CniError::config(if named { reason.to_owned() } else { format!("{key}: {reason}") })
    }
}
