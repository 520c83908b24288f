// SPDX-License-Identifier: Apache-2.0
//! Which features of the Gateway API work, by the names its conformance tests use. The status of GatewayClasses and the table in the README are made from
//! this list; what is not in it has a condition that says so.

/// A feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Feature {
    /// The name in `supportedFeatures`.
    pub name: &'static str,
    /// What it lets a person do.
    pub meaning: &'static str,
}

/// The features that work at waypoints, by name.
pub fn supported_features() -> &'static [Feature] {
    FEATURES
}

const fn feature(name: &'static str, meaning: &'static str) -> Feature {
    Feature { name, meaning }
}

const FEATURES: &[Feature] = &[
    feature("GRPCRoute", "route gRPC by service, method and headers"),
    feature("GRPCRouteNamedRouteRule", "give rules of gRPC names"),
    feature("HTTPRoute", "route HTTP by path and headers, with weights and changed headers"),
    feature("HTTPRoute303RedirectStatusCode", "redirect with 303"),
    feature("HTTPRoute307RedirectStatusCode", "redirect with 307"),
    feature("HTTPRoute308RedirectStatusCode", "redirect with 308"),
    feature("HTTPRouteBackendTimeout", "bound the time of each try"),
    feature("HTTPRouteCORS", "answer cross-origin requests"),
    feature("HTTPRouteHostRewrite", "send on with another host"),
    feature("HTTPRouteMethodMatching", "match the method"),
    feature("HTTPRouteNamedRouteRule", "give rules names"),
    feature("HTTPRouteParentRefPort", "route for one port of a service only"),
    feature("HTTPRouteRequestMirror", "send copies to another service"),
    feature("HTTPRouteRequestMultipleMirrors", "send copies to several services"),
    feature("HTTPRouteRequestPercentageMirror", "send copies of a share of the requests"),
    feature("HTTPRouteRequestTimeout", "bound the time of a request"),
    feature("HTTPRouteResponseHeaderModification", "change response headers"),
    feature("HTTPRouteRetry", "retry after failures, by status code, with a pause"),
    feature("Mesh", "services as parents of routes"),
    feature("MeshConsumerRoute", "routes of a client's namespace, for that namespace's clients only"),
    feature("MeshHTTPRouteBackendRequestHeaderModification", "change request headers for one backend"),
    feature("MeshHTTPRouteNamedRouteRule", "give rules of services' routes names"),
    feature("MeshHTTPRouteQueryParamMatching", "match query parameters"),
    feature("MeshHTTPRouteRedirectPath", "redirect to another path"),
    feature("MeshHTTPRouteRedirectPort", "redirect to another port"),
    feature("MeshHTTPRouteRewritePath", "send on with another path"),
    feature("MeshHTTPRouteSchemeRedirect", "redirect to another scheme"),
    feature("ReferenceGrant", "receivers in other namespaces, where these allow it"),
    feature("TCPRoute", "split TCP connections by weight"),
    feature("TLSRoute", "split TLS connections by weight, without ending TLS"),
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn features_are_listed_once_and_in_order() {
        let names: Vec<&str> = supported_features().iter().map(|feature| feature.name).collect();
        assert!(names.is_sorted_by(|a, b| a < b), "{names:?}");
    }
}
