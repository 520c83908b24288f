// SPDX-License-Identifier: Apache-2.0
//! The `baggage` header: what the sender says about its own workload, for telemetry only.
//!
//! Nothing here is proven by anything: who the peer *is* comes from its certificate.

use std::fmt;
use std::sync::Arc;

/// The text of the header. Cheap to clone: a workload's baggage is built once and sent with every request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Baggage(Arc<str>);

impl Baggage {
    /// Takes the text as it is; bytes that a header cannot carry make it `None`.
    pub fn new(text: impl Into<Arc<str>>) -> Option<Self> {
        let text = text.into();
        text.bytes().all(|b| (b' '..0x7f).contains(&b)).then_some(Self(text))
    }

    /// The text on the wire.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Reads the members that are known; others, and what is no `key=value`, are passed over.
    pub fn fields(&self) -> BaggageFields<'_> {
        let mut fields = BaggageFields::default();
        for member in self.0.split(',') {
            let Some((key, value)) = member.split_once('=') else { continue };
            // Properties of a member follow a semicolon (W3C Baggage §3.2.1).
            let value = value.split(';').next().unwrap_or_default().trim();
            if !value.is_empty() {
                fields.set(key.trim(), value);
            }
        }
        fields
    }
}

/// The members of Istio's baggage. Empty means absent, as on the wire.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct BaggageFields<'a> {
    /// `k8s.cluster.name`
    pub cluster: &'a str,
    /// `k8s.namespace.name`
    pub namespace: &'a str,
    /// The kind in `k8s.<kind>.name`: deployment, pod, job, cronjob and the like.
    pub workload_kind: &'a str,
    /// The value of `k8s.<kind>.name`.
    pub workload_name: &'a str,
    /// `service.name`, Istio's canonical name.
    pub canonical_name: &'a str,
    /// `service.version`, Istio's canonical revision.
    pub canonical_revision: &'a str,
    /// `cloud.region`
    pub region: &'a str,
    /// `cloud.availability_zone`
    pub zone: &'a str,
}

impl<'a> BaggageFields<'a> {
    /// Builds the header in ztunnel's order, without the keys whose value is empty. `None` if nothing is known, or if a value
    /// holds what a header cannot carry.
    pub fn to_baggage(&self) -> Option<Baggage> {
        let text = self.to_string();
        if text.is_empty() { None } else { Baggage::new(text) }
    }

    fn set(&mut self, key: &'a str, value: &'a str) {
        match key {
            "k8s.cluster.name" => self.cluster = value,
            "k8s.namespace.name" => self.namespace = value,
            "service.name" => self.canonical_name = value,
            "service.version" => self.canonical_revision = value,
            "cloud.region" => self.region = value,
            "cloud.availability_zone" => self.zone = value,
            _ => {
                if let Some(kind) = key.strip_prefix("k8s.").and_then(|rest| rest.strip_suffix(".name"))
                    && !kind.is_empty()
                    && !kind.contains('.')
                {
                    self.workload_kind = kind;
                    self.workload_name = value;
                }
            }
        }
    }
}

impl fmt::Display for BaggageFields<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut between = "";
        let mut member = |f: &mut fmt::Formatter<'_>, key: fmt::Arguments<'_>, value: &str| {
            if value.is_empty() {
                return Ok(());
            }
            write!(f, "{}{key}={value}", std::mem::replace(&mut between, ","))
        };
        member(f, format_args!("k8s.cluster.name"), self.cluster)?;
        member(f, format_args!("k8s.namespace.name"), self.namespace)?;
        if !self.workload_kind.is_empty() {
            member(f, format_args!("k8s.{}.name", self.workload_kind), self.workload_name)?;
        }
        member(f, format_args!("service.name"), self.canonical_name)?;
        member(f, format_args!("service.version"), self.canonical_revision)?;
        member(f, format_args!("cloud.region"), self.region)?;
        member(f, format_args!("cloud.availability_zone"), self.zone)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const CLIENT: &str = "k8s.cluster.name=Kubernetes,k8s.namespace.name=default,k8s.pod.name=client,service.name=client,service.version=latest";

    #[test]
    fn the_recorded_baggage_reads_and_writes_back_the_same() {
        let baggage = Baggage::new(CLIENT).unwrap();
        let fields = baggage.fields();
        assert_eq!((fields.cluster, fields.namespace), ("Kubernetes", "default"));
        assert_eq!((fields.workload_kind, fields.workload_name), ("pod", "client"));
        assert_eq!((fields.canonical_name, fields.canonical_revision), ("client", "latest"));
        assert_eq!(fields.to_baggage().unwrap(), baggage);
    }

    #[test]
    fn every_field_is_read_by_its_own_name() {
        let text = "k8s.cluster.name=a,k8s.namespace.name=b,k8s.deployment.name=c,service.name=d,service.version=e,cloud.region=f,cloud.availability_zone=g";
        let baggage = Baggage::new(text).unwrap();
        let fields = baggage.fields();
        assert_eq!((fields.canonical_revision, fields.region, fields.zone), ("e", "f", "g"));
        assert_eq!(fields.to_string(), text);
    }

    #[test]
    fn empty_values_are_left_out_and_order_is_fixed() {
        let fields = BaggageFields { namespace: "a", zone: "z", region: "r", ..Default::default() };
        assert_eq!(fields.to_string(), "k8s.namespace.name=a,cloud.region=r,cloud.availability_zone=z");
        assert_eq!(BaggageFields::default().to_baggage(), None);
    }

    #[test]
    fn what_is_not_understood_is_passed_over() {
        let baggage =
            Baggage::new(",=,a, service.name = x ;p=1,k8s..name=n,k8s.a.b.name=n,unknown=1,service.version=").unwrap();
        assert_eq!(baggage.fields(), BaggageFields { canonical_name: "x", ..Default::default() });
    }

    #[test]
    fn bytes_that_would_break_out_of_the_header_are_refused() {
        assert_eq!(Baggage::new("a=b\r\nx: y"), None);
        assert_eq!(Baggage::new("a=\u{e9}"), None);
    }
}
