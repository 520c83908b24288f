// SPDX-License-Identifier: Apache-2.0
//! Who may ask for whom.

use std::sync::Mutex;

use mesh_proto::discovery::{Struct, string_value};
use rcgen::{CertificateParams, KeyPair};
use tokio::sync::Notify;

use super::*;
use crate::caller::{KeySet, PodReference};

/// A cluster of a few pods: (namespace, name, facts).
#[derive(Default)]
struct Pods {
    pods: Mutex<Vec<(String, String, PodFacts)>>,
    news: Notify,
}

impl Pods {
    fn add(&self, namespace: &str, name: &str, service_account: &str, node: &str) {
        let facts =
            PodFacts { uid: format!("uid-{name}"), node: node.to_owned(), service_account: service_account.to_owned() };
        self.pods.lock().unwrap().push((namespace.to_owned(), name.to_owned(), facts));
        self.news.notify_waiters();
    }
}

impl Cluster for Pods {
    fn pod(&self, namespace: &str, name: &str) -> Option<PodFacts> {
        let pods = self.pods.lock().unwrap();
        pods.iter().find(|(n, p, _)| n == namespace && p == name).map(|(_, _, facts)| facts.clone())
    }

    fn runs_on(&self, node: &str, namespace: &str, service_account: &str) -> bool {
        let pods = self.pods.lock().unwrap();
        pods.iter()
            .any(|(n, _, facts)| n == namespace && facts.node == node && facts.service_account == service_account)
    }

    fn changed(&self) -> impl Future<Output = ()> + Send {
        self.news.notified()
    }
}

fn node_proxy(pod: Option<&str>) -> Caller {
    let pod = pod.map(|name| PodReference { name: name.to_owned(), uid: format!("uid-{name}") });
    Caller::assumed("spiffe://cluster.local/ns/istio-system/sa/ztunnel".parse().unwrap(), pod)
}

fn trusted() -> Vec<(String, String)> {
    vec![("istio-system".to_owned(), "ztunnel".to_owned())]
}

fn cluster() -> Pods {
    let pods = Pods::default();
    pods.add("istio-system", "ztunnel-a", "ztunnel", "n1");
    pods.add("istio-system", "ztunnel-b", "ztunnel", "n2");
    pods.add("shop", "cart-0", "cart", "n1");
    pods
}

const CART: &str = "spiffe://cluster.local/ns/shop/sa/cart";

#[test]
fn a_node_proxy_gets_the_identities_of_its_own_node_and_no_other() {
    let decide = |pod: Option<&str>, requested: &str| {
        may_impersonate(&node_proxy(pod), requested, "cluster.local", &trusted(), &cluster())
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
        may_impersonate(&stale, CART, "cluster.local", &trusted(), &cluster()),
        Err(Refusal::UnknownCaller { .. })
    ));
}

#[test]
fn an_ordinary_workload_gets_only_its_own() {
    let cart =
        Caller::assumed(CART.parse().unwrap(), Some(PodReference { name: "cart-0".into(), uid: "uid-cart-0".into() }));
    let other = "spiffe://cluster.local/ns/shop/sa/till";
    assert!(matches!(
        may_impersonate(&cart, other, "cluster.local", &trusted(), &cluster()),
        Err(Refusal::NotTrusted { .. })
    ));
}

fn service(cluster: Pods, patience: Duration) -> (tempfile::TempDir, CertificateService<Pods>) {
    let dir = tempfile::tempdir().unwrap();
    let authority = Authority::load_or_create(dir.path(), "cluster.local", OffsetDateTime::now_utc()).unwrap();
    let keys = KeySet::new(dir.path().join("jwks.json"));
    let authenticator = Authenticator::new("cluster.local".to_owned(), vec!["istio-ca".to_owned()], None, keys);
    let options = ServiceOptions { trusted_node_accounts: trusted(), patience };
    let service = CertificateService::new(
        Arc::new(authority),
        Arc::new(authenticator),
        Arc::new(cluster),
        options,
        CaMetrics::default(),
    );
    (dir, service)
}

#[tokio::test]
async fn a_pod_bound_a_moment_ago_is_waited_for() {
    let (_dir, service) = service(cluster(), Duration::from_secs(60));
    let late = "spiffe://cluster.local/ns/shop/sa/till";
    let caller = node_proxy(Some("ztunnel-a"));
    let (subject, ()) = tokio::join!(service.subject(&caller, Some(late)), async {
        tokio::task::yield_now().await;
        service.cluster.add("shop", "till-0", "till", "n1");
    });
    assert_eq!(subject.unwrap().to_string(), late);
}

#[tokio::test]
async fn a_pod_that_never_comes_is_refused_in_the_end() {
    let (_dir, service) = service(cluster(), Duration::from_millis(20));
    let caller = node_proxy(Some("ztunnel-a"));
    let nobody = service.subject(&caller, Some("spiffe://cluster.local/ns/shop/sa/nobody")).await;
    assert!(matches!(nobody, Err(Refusal::NotOnNode { .. })));
}

/// The words and codes are those Istio's control plane was recorded to answer with.
#[tokio::test]
async fn a_caller_that_proves_nothing_is_told_nothing() {
    let (_dir, service) = service(cluster(), Duration::from_secs(60));
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
