//! Tests on real packets and real VFs.
