// SPDX-License-Identifier: Apache-2.0
//! Certificates as `config_dump` shows them (M-13).

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use mesh_proto::spiffe::Identity;
use rustls::pki_types::CertificateDer;
use serde::Serialize;
use time::OffsetDateTime;
use time::format_description::well_known::Rfc3339;
use x509_parser::prelude::{ASN1Time, FromDer as _, X509Certificate};

use crate::certs::State;
use crate::tls::Credential;

/// One identity.
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub(super) struct IdentityDump {
    identity: String,
    state: String,
    cert_chain: Vec<CertificateDump>,
    root_certs: Vec<CertificateDump>,
}

#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
struct CertificateDump {
    /// Base64 of the PEM text.
    pem: String,
    /// In decimal.
    serial_number: String,
    valid_from: String,
    expiration_time: String,
}

/// Every wanted identity, in order.
pub(super) fn dump(
    standing: &BTreeMap<Identity, State>,
    credentials: &HashMap<Identity, Arc<Credential>>,
) -> Vec<IdentityDump> {
    let each = standing.iter().map(|(identity, state)| {
        let credential = credentials.get(identity);
        IdentityDump {
            identity: identity.to_string(),
            state: match state {
                State::Initializing => "Initializing".to_owned(),
                State::Available => "Available".to_owned(),
                State::Unavailable(reason) => format!("Unavailable: {reason}"),
            },
            cert_chain: list(credential.map(|credential| credential.chain())),
            root_certs: list(credential.map(|credential| credential.root_certificates())),
        }
    });
    each.collect()
}

fn list(certificates: Option<&[CertificateDer<'static>]>) -> Vec<CertificateDump> {
    certificates.unwrap_or_default().iter().filter_map(one).collect()
}

fn one(certificate: &CertificateDer<'_>) -> Option<CertificateDump> {
    let (_, parsed) = X509Certificate::from_der(certificate).ok()?;
    Some(CertificateDump {
        pem: STANDARD.encode(pem(certificate)),
        serial_number: parsed.tbs_certificate.serial.to_string(),
        valid_from: date(parsed.validity().not_before),
        expiration_time: date(parsed.validity().not_after),
    })
}

fn pem(certificate: &[u8]) -> String {
    let base64 = STANDARD.encode(certificate);
    let mut text = String::from("-----BEGIN CERTIFICATE-----\n");
    let mut rest = base64.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        text.push_str(line);
        text.push('\n');
        rest = more;
    }
    text.push_str("-----END CERTIFICATE-----\n");
    text
}

fn date(time: ASN1Time) -> String {
    let date = OffsetDateTime::from_unix_timestamp(time.timestamp()).ok();
    date.and_then(|date| date.format(&Rfc3339).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use rustls::pki_types::pem::PemObject as _;

    use super::*;

    #[test]
    fn a_certificate_is_shown_as_istio_shows_it() {
        let recorded: serde_json::Value =
            serde_json::from_str(include_str!("../../tests/wire/whole-config-dump-ztunnel.json")).unwrap();
        let shown = &recorded["certificates"][0]["certChain"][0];
        let text = STANDARD.decode(shown["pem"].as_str().unwrap()).unwrap();
        let certificate = CertificateDer::from_pem_slice(&text).unwrap();
        let ours = serde_json::to_value(one(&certificate).unwrap()).unwrap();
        for key in ["serialNumber", "validFrom", "expirationTime"] {
            assert_eq!(ours[key], shown[key]);
        }
        // The recorded authority broke its lines at 60.
        let text = STANDARD.decode(ours["pem"].as_str().unwrap()).unwrap();
        assert!(text.split(|byte| *byte == b'\n').all(|line| line.len() <= 64));
        assert_eq!(CertificateDer::from_pem_slice(&text).unwrap(), certificate);
    }
}
