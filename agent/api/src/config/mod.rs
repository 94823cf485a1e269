//! Configuration files: raw types that serde fills, validated types that the programs use.
//!
//! A raw type refuses unknown keys; its validated twin can only hold values that make sense.
