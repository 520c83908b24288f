// SPDX-License-Identifier: Apache-2.0
//! Who may ask for whom.

use mesh_proto::discovery::{Struct, string_value};
use rcgen::{CertificateParams, KeyPair};
use serde_json::json;

use super::*;
use crate::api::{Kind, Object};
use crate::caller::{KeySet, PodReference};
use crate::line::Line;
use crate::store::Change;
use crate::view::Mesh;

fn pod(namespace: &str, name: &str, service_account: &str, node: &str, phase: &str) -> Change {
    let object = json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"namespace": namespace, "name": name, "uid": format!("uid-{name}")},
        "spec": {"nodeName": node, "serviceAccountName": service_account, "containers": []},
        "status": {"phase": phase},
    });
    Change::Put(Object::read(Kind::Pod, object).unwrap())
}

fn cluster() -> Line {
    let mut line = Line::new(Mesh::default());
    line.apply([
        pod("istio-system", "ztunnel-a", "ztunnel", "n1", "Running"),
        pod("istio-system", "ztunnel-b", "ztunnel", "n2", "Running"),
        pod("shop", "cart-0", "cart", "n1", "Pending"),
        pod("shop", "job-0", "job", "n1", "Succeeded"),
    ]);
    line
}

fn published(line: &Line) -> Published {
    Published { snapshot: line.snapshot().clone(), synced: true, ..Published::default() }
}

fn node_proxy(pod: Option<&str>) -> Caller {
    let pod = pod.map(|name| PodReference { name: name.to_owned(), uid: format!("uid-{name}") });
    Caller::assumed("spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap(), pod)
}

fn trusted() -> Vec<(String, String)> {
    vec![("istio-system".to_owned(), "ztunnel".to_owned())]
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[test]
fn a_node_proxy_gets_the_identities_of_its_own_node_and_no_other() {
    let decide = |pod: Option<&str>, requested: &str| {
        may_impersonate(&node_proxy(pod), requested, &trusted(), cluster().snapshot())
    };
    assert_eq!(decide(Some("ztunnel-a"), CART).unwrap().to_string(), CART);
    assert!(matches!(decide(Some("ztunnel-b"), CART), Err(Refusal::NotOnNode { .. })));
    assert!(matches!(decide(Some("ztunnel-c"), CART), Err(Refusal::UnknownCaller { .. })));
    assert!(matches!(decide(None, CART), Err(Refusal::NoPod { .. })));
    for foreign in ["spiffe://other/ns/shop/sa/cart", "spiffe://cluster.local/ns/shop/sa/cart,spiffe://x", "cart", ""] {
        assert!(matches!(decide(Some("ztunnel-a"), foreign), Err(Refusal::Identity(_))), "{foreign}");
    }
}

#[test]
fn a_token_of_a_pod_that_was_replaced_is_worth_nothing() {
    let stale = Caller::assumed(
        "spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap(),
        Some(PodReference { name: "ztunnel-a".to_owned(), uid: "uid-of-before".to_owned() }),
    );
    assert!(matches!(
        may_impersonate(&stale, CART, &trusted(), cluster().snapshot()),
        Err(Refusal::UnknownCaller { .. })
    ));
}

#[test]
fn an_ordinary_workload_gets_only_its_own() {
    let cart =
        Caller::assumed(CART.parse().unwrap(), Some(PodReference { name: "cart-0".into(), uid: "uid-cart-0".into() }));
    let other = "spiffe://cluster.local/ns/shop/sa/till";
    assert!(matches!(may_impersonate(&cart, other, &trusted(), cluster().snapshot()), Err(Refusal::NotTrusted { .. })));
}

fn service(published: watch::Receiver<Published>, patience: Duration) -> (tempfile::TempDir, CertificateService) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(dir.path(), "cluster.local", OffsetDateTime::now_utc()).unwrap();
    let keys = KeySet::new(dir.path().join("jwks.json"));
    let authenticator = Authenticator::new("cluster.local".to_owned(), vec!["istio-ca".to_owned()], None, keys);
    let options = ServiceOptions { trusted_node_accounts: trusted(), patience };
    let service =
        CertificateService::new(Arc::new(authority), Arc::new(authenticator), published, options, CaMetrics::default());
    (dir, service)
}

#[tokio::test]
async fn a_pod_bound_a_moment_ago_is_waited_for() {
    let mut line = cluster();
    let (publish, receiver) = watch::channel(published(&line));
    let (_dir, service) = service(receiver, Duration::from_secs(60));
    let late = "spiffe://cluster.local/ns/shop/sa/till";
    let caller = node_proxy(Some("ztunnel-a"));
    let (subject, ()) = tokio::join!(service.subject(&caller, Some(late)), async {
        tokio::task::yield_now().await;
        line.apply([pod("shop", "till-0", "till", "n1", "Pending")]);
        publish.send_replace(published(&line));
    });
    assert_eq!(subject.unwrap().to_string(), late);
}

#[tokio::test]
async fn a_pod_that_never_comes_or_has_ended_is_refused() {
    let (_publish, receiver) = watch::channel(published(&cluster()));
    let (_dir, service) = service(receiver, Duration::from_millis(20));
    let caller = node_proxy(Some("ztunnel-a"));
    for account in ["nobody", "job"] {
        let refused = service.subject(&caller, Some(&format!("spiffe://cluster.local/ns/shop/sa/{account}"))).await;
        assert!(matches!(refused, Err(Refusal::NotOnNode { .. })), "{account}");
    }
}

/// The words and codes are those Istio's control plane was recorded to answer with.
#[tokio::test]
async fn a_caller_that_proves_nothing_is_told_nothing() {
    let (_publish, receiver) = watch::channel(published(&cluster()));
    let (_dir, service) = service(receiver, Duration::from_secs(60));
    let key = KeyPair::generate().unwrap();
    let csr = CertificateParams::default().serialize_request(&key).unwrap().pem().unwrap();
    let metadata = Struct { fields: [("ImpersonatedIdentity".to_owned(), string_value(CART))].into() };
    let request = IstioCertificateRequest { csr, validity_duration: 0, metadata: Some(metadata) };
    for token in ["", "Bearer ", "Bearer nonsense", "Basic eA=="] {
        let mut request = Request::new(request.clone());
        request.metadata_mut().insert("authorization", token.parse().unwrap());
        let status = service.create_certificate(request).await.unwrap_err();
        assert_eq!(status.code(), tonic::Code::Unauthenticated);
        assert_eq!(status.message(), "request authenticate failure");
    }
}
