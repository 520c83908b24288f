// SPDX-License-Identifier: Apache-2.0
//! The two ends of mutual TLS at a waypoint: TLS 1.3 with HTTP/2, certificates by SDS, peers of the mesh's trust domains. Called by `fixed` and the
//! listener of HBONE.

use std::path::Path;

use envoy_types::pb::envoy::{
    config::core::v3::{
        ApiConfigSource, ApiVersion, ConfigSource, GrpcService, PathConfigSource, TransportSocket, WatchedDirectory,
        api_config_source::ApiType,
        config_source::ConfigSourceSpecifier,
        grpc_service::{EnvoyGrpc, TargetSpecifier},
    },
    extensions::transport_sockets::tls::v3::{
        CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, SdsSecretConfig, SubjectAltNameMatcher,
        TlsParameters, UpstreamTlsContext,
        common_tls_context::{CombinedCertificateValidationContext, ValidationContextType},
        subject_alt_name_matcher::SanType,
        tls_parameters::TlsProtocol,
    },
    r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern},
};

use super::part::transport_socket;
use crate::envoy::{
    Secrets,
    encode::{flag, pack, seconds},
};

/// Of the end that accepts.
pub(in crate::envoy) fn downstream(secrets: &Secrets, trust_domains: &[String]) -> TransportSocket {
    let context = DownstreamTlsContext {
        common_tls_context: Some(common(secrets, trust_domains)),
        require_client_certificate: flag(true),
        ..Default::default()
    };
    transport_socket("tls", pack(&context))
}

/// Of the end that connects. Which service account it must reach is told connection by connection, by `connect_originate`.
pub(super) fn upstream(secrets: &Secrets, trust_domains: &[String]) -> TransportSocket {
    let context = UpstreamTlsContext { common_tls_context: Some(common(secrets, trust_domains)), ..Default::default() };
    transport_socket("tls", pack(&context))
}

fn common(secrets: &Secrets, trust_domains: &[String]) -> CommonTlsContext {
    let (certificate, roots) = match secrets {
        Secrets::Files { certificate, roots } => (file(certificate), file(roots)),
        Secrets::Agent { cluster } => (agent(cluster), agent(cluster)),
    };
    let matcher = |domain: &String| SubjectAltNameMatcher {
        san_type: SanType::Uri.into(),
        matcher: Some(StringMatcher {
            match_pattern: Some(MatchPattern::Prefix(format!("spiffe://{domain}/"))),
            ..Default::default()
        }),
        ..Default::default()
    };
    let validation = CombinedCertificateValidationContext {
        default_validation_context: Some(CertificateValidationContext {
            match_typed_subject_alt_names: trust_domains.iter().map(matcher).collect(),
            ..Default::default()
        }),
        validation_context_sds_secret_config: Some(SdsSecretConfig { name: "ROOTCA".into(), sds_config: Some(roots) }),
        ..Default::default()
    };
    CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: TlsProtocol::TlSv13.into(),
            tls_maximum_protocol_version: TlsProtocol::TlSv13.into(),
            ..Default::default()
        }),
        alpn_protocols: vec!["h2".into()],
        tls_certificate_sds_secret_configs: vec![SdsSecretConfig {
            name: "default".into(),
            sds_config: Some(certificate),
        }],
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(validation)),
        ..Default::default()
    }
}

fn file(path: &str) -> ConfigSource {
    // The folder is watched, so that whoever writes the file may replace it as Kubernetes replaces volumes.
    let folder = Path::new(path).parent().filter(|folder| !folder.as_os_str().is_empty());
    let source = PathConfigSource {
        path: path.to_owned(),
        watched_directory: folder
            .map(|folder| WatchedDirectory { path: folder.display().to_string(), ..Default::default() }),
        ..Default::default()
    };
    source_of(ConfigSourceSpecifier::PathConfigSource(source))
}

fn agent(cluster: &str) -> ConfigSource {
    let grpc = EnvoyGrpc { cluster_name: cluster.to_owned(), ..Default::default() };
    let service = GrpcService { target_specifier: Some(TargetSpecifier::EnvoyGrpc(grpc)), ..Default::default() };
    let source = ApiConfigSource {
        api_type: ApiType::Grpc.into(),
        transport_api_version: ApiVersion::V3.into(),
        grpc_services: vec![service],
        set_node_on_first_message_only: true,
        ..Default::default()
    };
    ConfigSource { initial_fetch_timeout: seconds(0), ..source_of(ConfigSourceSpecifier::ApiConfigSource(source)) }
}

fn source_of(specifier: ConfigSourceSpecifier) -> ConfigSource {
    ConfigSource {
        resource_api_version: ApiVersion::V3.into(),
        config_source_specifier: Some(specifier),
        ..Default::default()
    }
}
