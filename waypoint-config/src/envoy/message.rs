// SPDX-License-Identifier: Apache-2.0
//! The two messages of Envoy's interface that `envoy-types` leaves out. Used by `listener` and `encode`.

use envoy_types::pb::xds::{core::v3::CidrRange, r#type::matcher::v3::matcher::OnMatch};
use mesh_proto::discovery::Struct;
use prost::{Message, Name};

/// `xds.type.matcher.v3.IPMatcher`: the longest range that holds an address decides.
#[derive(Clone, PartialEq, Message)]
pub(super) struct IpMatcher {
    #[prost(message, repeated, tag = "1")]
    pub(super) range_matchers: Vec<IpRangeMatcher>,
}

#[derive(Clone, PartialEq, Message)]
pub(super) struct IpRangeMatcher {
    #[prost(message, repeated, tag = "1")]
    pub(super) ranges: Vec<CidrRange>,
    #[prost(message, optional, tag = "2")]
    pub(super) on_match: Option<OnMatch>,
}

impl Name for IpMatcher {
    const NAME: &'static str = "IPMatcher";
    const PACKAGE: &'static str = "xds.type.matcher.v3";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}

/// `xds.type.v3.TypedStruct`: a message given by its type and its JSON form, for types this program does not have.
#[derive(Clone, PartialEq, Message)]
pub(super) struct TypedStruct {
    #[prost(string, tag = "1")]
    pub(super) type_url: String,
    #[prost(message, optional, tag = "2")]
    pub(super) value: Option<Struct>,
}

impl Name for TypedStruct {
    const NAME: &'static str = "TypedStruct";
    const PACKAGE: &'static str = "xds.type.v3";

    fn type_url() -> String {
        format!("type.googleapis.com/{}", Self::full_name())
    }
}
