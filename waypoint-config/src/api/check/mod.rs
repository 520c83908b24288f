// SPDX-License-Identifier: Apache-2.0
//! What an API server and its webhooks would refuse. Types alone let it through; a directory has nobody else to ask.
//! Called by `object` on every object read. Every refusal names the field.
//!
//! `object` asks the rest: `kube`, `security`, `entry` and `gateway` go over typed objects, `route` and `filter` over plain values, `pattern` over regular
//! expressions; `value` has what they share.

mod entry;
mod filter;
mod gateway;
mod kube;
mod object;
mod pattern;
mod route;
mod security;
mod value;

pub(super) use object::{object, value};
pub use pattern::regex_fault;
pub use value::{is_dns_label, is_dns_subdomain, is_header_name, parse_range};
