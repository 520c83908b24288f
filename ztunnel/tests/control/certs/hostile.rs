// SPDX-License-Identifier: Apache-2.0
//! A CA that is away, slow, or answers nonsense: what is in force goes on to its end, who waits is told why, the CA is
//! called seldom, and once it is well it takes one call.

use std::sync::atomic::AtomicBool;

use super::super::server::NEVER;
use super::*;

type Answer = Box<dyn Fn(&Authority, &IstioCertificateRequest) -> Result<Vec<String>, Status> + Send + Sync>;

/// Every wrong answer, with a word of the reason.
fn wrong_answers() -> Vec<(&'static str, Answer)> {
    fn answer(make: impl Fn(&Authority, &IstioCertificateRequest) -> Vec<String> + Send + Sync + 'static) -> Answer {
        Box::new(move |authority, request| Ok(make(authority, request)))
    }
    let other = Arc::new(ztunnel::certs::Draft::new(id("b")).unwrap());
    let same = Arc::new(ztunnel::certs::Draft::new(id("a")).unwrap());
    let stranger = Authority::new().root;
    let (unknown, short) = (stranger.clone(), stranger);
    let garbage = "-----BEGIN CERTIFICATE-----\n!!!\n-----END CERTIFICATE-----\n";
    vec![
        ("another key", answer(move |ca, _| vec![ca.sign(other.csr(), 3600), ca.root.clone()])),
        ("another key", answer(move |ca, _| vec![ca.sign(same.csr(), 3600), ca.root.clone()])),
        ("another identity", answer(|ca, request| vec![ca.sign_as_nobody(&request.csr), ca.root.clone()])),
        ("peers would refuse", answer(move |ca, request| vec![ca.sign(&request.csr, 3600), unknown.clone()])),
        ("expired", answer(|ca, request| vec![ca.sign_from(&request.csr, -60, -1), ca.root.clone()])),
        ("not valid yet", answer(|ca, request| vec![ca.sign_from(&request.csr, 900, 999), ca.root.clone()])),
        ("no PEM", answer(move |ca, _| vec![garbage.to_owned(), ca.root.clone()])),
        ("no root", answer(|ca, request| vec![ca.sign(&request.csr, 3600)])),
        ("empty", answer(move |_, _| vec![String::new(), short.clone()])),
        ("empty", answer(|_, _| Vec::new())),
        ("cannot be used", answer(|ca, request| vec![ca.sign(&request.csr, 3600), "x".repeat(1 << 20)])),
        ("refused: busy", Box::new(|_, _| Err(Status::unavailable("busy")))),
        ("too large", answer(|_, _| vec!["x".repeat(5 << 20)])),
    ]
}

#[tokio::test]
async fn every_wrong_answer_is_refused_with_its_reason_and_never_used() {
    let (tasks, authority) = (Tasks::new(), Arc::new(Authority::new()));
    let signing = Arc::clone(&authority);
    let answers = Arc::new(wrong_answers());
    let (chosen, given) = (Arc::new(AtomicUsize::new(0)), Arc::clone(&answers));
    let choice = Arc::clone(&chosen);
    let mut world = World::new(&tasks, &authority, move |request| {
        let (_, answer) = &given[choice.load(Ordering::Relaxed)];
        answer(&signing, &request).map(|cert_chain| IstioCertificateResponse { cert_chain })
    })
    .await;
    for (number, (reason, _)) in answers.iter().enumerate() {
        chosen.store(number, Ordering::Relaxed);
        world.orders.send(Order::Need(id("a"))).unwrap();
        let Outcome::Refused(identity, said) = world.outcome().await else { panic!("{reason}: not refused") };
        assert_eq!(identity, id("a"));
        assert!(said.contains(reason), "{reason}: {said}");
        assert!(world.published.load().is_empty());
        world.forget().await;
    }
}

impl World {
    /// Lets the schedule forget what nobody wants.
    async fn forget(&self) {
        self.orders.send(want("nobody", Some(id("a")))).unwrap();
        self.orders.send(want("nobody", None)).unwrap();
        while self.standing.load().contains_key(&id("a")) {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    }
}

#[tokio::test]
async fn what_is_in_force_goes_on_to_its_end_and_a_ca_that_is_well_again_is_heard() {
    /// Renewals begin at half of it, which is long before its end.
    const SECONDS: i64 = 12;
    /// The first delay is a second and each is twice the one before: more calls than these take longer than this test may.
    const MOST_REFUSED: usize = 8;
    let (tasks, authority) = (Tasks::new(), Arc::new(Authority::new()));
    let signing = Arc::clone(&authority);
    let (signed, refused) = (Arc::new(AtomicUsize::new(0)), Arc::new(AtomicUsize::new(0)));
    let is_well = Arc::new(AtomicBool::new(false));
    let (well, signs, refuses) = (Arc::clone(&is_well), Arc::clone(&signed), Arc::clone(&refused));
    let mut world = World::new(&tasks, &authority, move |request| {
        // One, then none until it is well, and then one that is good for longer than anything here.
        let seconds = match (signs.load(Ordering::Relaxed), well.load(Ordering::Relaxed)) {
            (0, _) => SECONDS,
            (_, true) => 3600,
            (_, false) => {
                refuses.fetch_add(1, Ordering::Relaxed);
                return Err(Status::permission_denied("no more"));
            }
        };
        signs.fetch_add(1, Ordering::Relaxed);
        Ok(IstioCertificateResponse { cert_chain: vec![signing.sign(&request.csr, seconds), signing.root.clone()] })
    })
    .await;
    world.orders.send(want("pod", Some(id("a")))).unwrap();
    assert_eq!(world.outcome().await, Outcome::Changed(id("a")));
    let end = world.published.load()[&id("a")].not_after();
    // Renewals fail; nothing is said before the end, and then it is taken out of use.
    assert_eq!(world.outcome().await, Outcome::Changed(id("a")));
    // The clocks of the schedule and of certificates may differ by a little; a slow machine comes later still.
    let left = end.duration_since(std::time::SystemTime::now()).unwrap_or_default();
    assert!(left < Duration::from_secs(1), "withdrawn {left:?} too early");
    assert!(world.published.load().is_empty());
    let Outcome::Refused(_, reason) = world.outcome().await else { panic!("who waits is not told") };
    assert!(reason.contains("no more"), "{reason}");

    // However many connections ask, it takes one call. One that is under way still may be refused.
    is_well.store(true, Ordering::Relaxed);
    for _ in 0..1000 {
        world.orders.send(Order::Need(id("a"))).unwrap();
    }
    while !matches!(world.outcome().await, Outcome::Changed(_)) {}
    assert_eq!(signed.load(Ordering::Relaxed), 2);
    let refused = refused.load(Ordering::Relaxed);
    assert!((1..=MOST_REFUSED).contains(&refused), "{refused} calls were refused");
    assert_eq!(world.published.load().len(), 1);
}

#[tokio::test]
async fn a_ca_that_never_answers_is_left_for_another_connection() {
    let (tasks, authority) = (Tasks::new(), Arc::new(Authority::new()));
    let signing = Arc::clone(&authority);
    let calls = Arc::new(AtomicUsize::new(0));
    let counted = Arc::clone(&calls);
    let mut world = World::new(&tasks, &authority, move |request| {
        // The first three are for the replica that hangs.
        if counted.fetch_add(1, Ordering::Relaxed) < 3 {
            return Err(Status::internal(NEVER));
        }
        Ok(IstioCertificateResponse { cert_chain: vec![signing.sign(&request.csr, 3600), signing.root.clone()] })
    })
    .await;
    for name in ["a", "b", "c"] {
        world.orders.send(Order::Need(id(name))).unwrap();
    }
    for _ in 0..3 {
        let Outcome::Refused(_, reason) = world.outcome().await else { panic!("answered") };
        assert!(reason.contains("did not answer within 10 s"), "{reason}");
    }
    assert_eq!(world.server.connections.load(Ordering::Relaxed), 1);
    world.orders.send(Order::Need(id("d"))).unwrap();
    while !matches!(world.outcome().await, Outcome::Changed(_)) {}
    assert_eq!(world.server.connections.load(Ordering::Relaxed), 2);
}

#[tokio::test]
async fn an_address_at_which_nobody_shakes_hands_is_given_up_in_time() {
    let authority = Authority::new();
    let tasks = Tasks::new();
    let server = Server::start(&tasks, &authority, "localhost", |_, _| Err(Status::ok(""))).await;
    let silent = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let mut control_plane = server.options(&authority);
    control_plane.address = format!("https://localhost:{}", silent.local_addr().unwrap().port()).parse().unwrap();
    let client = Client::new(Options { control_plane, ttl: Duration::from_secs(3600) });
    // Several at once, for one connects and the others wait for it.
    let (a, b, c) = (id("a"), id("b"), id("c"));
    let calls = async { tokio::join!(client.issue(&a), client.issue(&b), client.issue(&c)) };
    let (first, second, third) = tokio::time::timeout(Duration::from_secs(25), calls).await.expect("too slow");
    for result in [first, second, third] {
        let reason = ztunnel::control_plane::explain(&result.unwrap_err());
        assert!(reason.contains("no TLS connection") || reason.contains("did not answer"), "{reason}");
    }
}
