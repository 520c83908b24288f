// SPDX-License-Identifier: Apache-2.0
//! What peers and applications may take at most, and that their neighbours still get theirs.

use std::io::{ErrorKind, Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::{Arc, mpsc};
use std::time::Duration;

use hbone::ErrorCode;
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use super::Kind;
use super::account::{Reason, Reporter};
use super::peer::{Peer, Told, dial_from};
use super::world::*;
use crate::tls::test_ca::credential;

fn refusals(node: &Node, reporter: Reporter, reason: Reason) -> u64 {
    node.shared.accounts.refusals(reporter).find(|(each, _)| *each == reason).unwrap().1
}

fn used(node: &Node, kind: Kind) -> usize {
    node.handle.gauges().used(kind)
}

/// Whether it was reset, looked at without waiting. The kernel says so once, and afterwards that it has ended.
fn is_reset(mut stream: &TcpStream) -> bool {
    stream.set_nonblocking(true).unwrap();
    let reset = match stream.read(&mut [0; 1]) {
        Ok(count) => count == 0,
        Err(error) => error.kind() == ErrorKind::ConnectionReset,
    };
    stream.set_nonblocking(false).unwrap();
    reset
}

#[test]
fn handshakes_of_one_address_leave_room_for_those_of_others() {
    let world = World::start_with("", |options| options.limits.handshakes_per_source = 4);
    let port = SocketAddr::new(world.host(3), 15008);
    let flood: Vec<_> = (0..20).map(|_| dial_from(world.host(101), port)).collect();
    let refused = || flood.iter().filter(|stream| is_reset(stream)).count();
    wait_for("16 of 20 refused", || refused() == 16, || world.server.log());
    world.server.logged(&["connection failed", &world.host(101).to_string(), "from this address: it has 4"]);
    assert_eq!(refusals(&world.server, Reporter::Destination, Reason::Handshakes), 16);
    assert_eq!(used(&world.server, Kind::Handshakes), 4);
    // Another address is not concerned.
    let app = world.application(echo);
    assert_eq!(ask(&mut world.connect(app), b"neighbour"), b"NEIGHBOUR");
    assert_eq!(used(&world.server, Kind::Handshakes), 4, "those of the flood wait on");
    drop(flood);
    wait_for("end of handshakes", || used(&world.server, Kind::Handshakes) == 0, || world.server.log());
    // Nor is the same address any more.
    let client = credential(&world.ca, &identity("client"));
    let mut peer = Peer::over(dial_from(world.host(101), port), &client, &identity("server"));
    let stream = peer.request(app);
    assert_eq!(peer.wait(|told| matches!(told, Told::Answer(..))), Told::Answer(stream, 200));
}

#[test]
fn strangers_leave_half_of_the_handshakes_to_the_mesh() {
    let world = World::start_with("", |options| options.limits.handshakes_per_pod = 8);
    let port = SocketAddr::new(world.host(3), 15008);
    let strangers: Vec<_> = (0..12).map(|number| dial_from(world.host(101 + number), port)).collect();
    let refused = || strangers.iter().filter(|stream| is_reset(stream)).count();
    wait_for("8 of 12 refused", || refused() == 8, || world.server.log());
    world.server.logged(&["too many handshakes under way: 4, and this address is in no workload's record"]);
    // The client pod's own address is in a record.
    let client = credential(&world.ca, &identity("client"));
    Peer::over(dial_from(world.host(2), port), &client, &identity("server"));
}

#[test]
fn a_flood_is_counted_whole_and_logged_in_part() {
    let world = World::start_with("", |options| {
        options.limits.handshakes_per_source = 1;
        options.limits.denied_lines = 1;
    });
    let port = SocketAddr::new(world.host(3), 15008);
    let _flood: Vec<_> = (0..200).map(|_| dial_from(world.host(101), port)).collect();
    let counted = || refusals(&world.server, Reporter::Destination, Reason::Handshakes);
    wait_for("199 refusals", || counted() == 199, || world.server.log());
    let lines = || world.server.log().lines().filter(|line| line.contains("it has 1")).count() as u64;
    let left_out = || world.server.shared.accounts.lines_left_out();
    wait_for("the others to be left out", || lines() + left_out() == 199, || format!("{} {}", lines(), left_out()));
    // Eight at once and one a second; a neighbour's line comes through.
    assert!(left_out() > 100, "{} were left out", left_out());
    dial_from(world.host(102), port).write_all(b"GET / HTTP/1.1\r\n\r\n").unwrap();
    world.server.logged(&["connection failed", &world.host(102).to_string()]);
}

#[test]
fn a_pod_that_opens_all_it_can_leaves_as_much_to_the_others() {
    let world = World::start_with("", |options| options.limits.sockets = Some(400));
    let outside = serve_at(world.host(200), echo);
    let (greedy, modest) = (world.door_to(outside), world.door_to(outside));
    let fixed = used(&world.client, Kind::Sockets);
    let mut first = dial(greedy);
    assert_eq!(ask(&mut first, b"first"), b"FIRST");
    let flood: Vec<_> = (0..250).map(|_| dial(greedy)).collect();
    let refused = || flood.iter().filter(|stream| is_reset(stream)).count();
    let counted = || refusals(&world.client, Reporter::Source, Reason::Sockets);
    // Two sockets each; what was accepted before the limit may fail when it wants its second one, and is logged as what it is.
    wait_for("half of them refused", || refused() >= 140 && counted() > 0, || world.client.log());
    world.client.logged(&["connection failed", "too many sockets of this pod: it has ", "its share of 400"]);
    assert_eq!(ask(&mut dial(modest), b"neighbour"), b"NEIGHBOUR");
    assert_eq!(ask(&mut first, b"goes on"), b"GOES ON");
    drop((first, flood));
    wait_for("all sockets back", || used(&world.client, Kind::Sockets) == fixed, || world.client.log());
    assert_eq!(ask(&mut dial(greedy), b"again"), b"AGAIN");
    assert_eq!(used(&world.client, Kind::Dials), 0);
}

/// A port that takes no connections and refuses none: its queue is full.
fn black_hole(world: &World) -> (SocketAddr, TcpListener, Vec<TcpStream>) {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.bind(&SocketAddr::new(world.host(201), 0).into()).unwrap();
    socket.listen(0).unwrap();
    let listener = TcpListener::from(socket);
    let at = listener.local_addr().unwrap();
    let mut inside = Vec::new();
    while let Ok(stream) = TcpStream::connect_timeout(&at, Duration::from_millis(300)) {
        inside.push(stream);
        assert!(inside.len() < 100, "a queue without end");
    }
    (at, listener, inside)
}

#[test]
fn a_pod_that_dials_the_dead_leaves_dials_to_the_others() {
    let world = World::start_with("", |options| {
        options.limits.dials = Some(64);
        options.deadlines.connect = PATIENCE * 4;
    });
    let (dead, _listener, _inside) = black_hole(&world);
    let (greedy, modest) = (world.door_to(dead), world.door_to(serve_at(world.host(200), echo)));
    let flood: Vec<_> = (0..50).map(|_| dial(greedy)).collect();
    let refused = || flood.iter().filter(|stream| is_reset(stream)).count();
    wait_for("18 of 50 refused", || refused() == 18, || world.client.log());
    world.client.logged(&["too many connections being opened of this pod: it has 32, its share of 64"]);
    assert_eq!(used(&world.client, Kind::Dials), 32);
    assert_eq!(ask(&mut dial(modest), b"neighbour"), b"NEIGHBOUR");
    flood.into_iter().for_each(abort);
    wait_for("dials to be given up", || used(&world.client, Kind::Dials) == 0, || world.client.log());
}

#[test]
fn two_thousand_connections_at_once_simply_work() {
    const COUNT: usize = 2000;
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).unwrap();
    // Each has four sockets here, and a pod gets half of what there is.
    let count = COUNT.min(usize::try_from(hard / 6).unwrap());
    let world = World::start("");
    let app = TcpListener::bind((world.host(3), 0)).unwrap();
    let at = app.local_addr().unwrap();
    std::thread::spawn(move || {
        let mut open = Vec::new();
        for _ in 0..count {
            let (mut stream, _) = app.accept().unwrap();
            let mut question = [0; 4];
            stream.read_exact(&mut question).unwrap();
            stream.write_all(&question).unwrap();
            open.push(stream);
        }
        // Nobody ends before all have been served.
        open.iter_mut().for_each(|stream| stream.write_all(b"!").unwrap());
    });
    let door = world.door_to(at);
    let mut streams: Vec<_> = (0..count).map(|_| dial(door)).collect();
    for (number, stream) in streams.iter_mut().enumerate() {
        stream.write_all(&(number as u32).to_be_bytes()).unwrap();
    }
    for (number, stream) in streams.iter_mut().enumerate() {
        let mut answer = [0; 5];
        stream.read_exact(&mut answer).unwrap_or_else(|error| panic!("{number}: {error}\n{}", world.client.log()));
        assert_eq!(answer[..4], (number as u32).to_be_bytes());
    }
    drop(streams);
    let ended = |node: &Node, reporter| node.totals(reporter).closed == count as u64;
    wait_for("all ends", || ended(&world.client, Reporter::Source), || world.client.log());
    wait_for("all ends", || ended(&world.server, Reporter::Destination), || world.server.log());
    assert_eq!(
        (world.client.totals(Reporter::Source).failed, world.server.totals(Reporter::Destination).failed),
        (0, 0)
    );
}

#[test]
fn stalled_streams_stay_within_every_budget_and_are_reset_past_it() {
    const STREAMS: usize = 99;
    const TUNNELS: usize = 11;
    let (of_tunnel, of_pod) = (1 << 20, 6 << 20);
    let world = World::start_with("", |options| {
        options.limits.tunnel_bytes = of_tunnel;
        options.limits.pod_bytes = of_pod;
    });
    // An application that never reads.
    let listener = small_listener(&world);
    let app = listener.local_addr().unwrap();
    let gauges = world.server.handle.gauges();
    let client = Arc::new(credential(&world.ca, &identity("client")));
    let (door, elsewhere) = (SocketAddr::new(world.host(3), 15008), SocketAddr::new(world.host(9), 1));
    let (report, reports) = mpsc::channel();
    // Each at its own pace: who does not answer for half a minute is given up.
    let peers: Vec<_> = (0..TUNNELS)
        .map(|_| {
            let (client, report, (end, ended)) = (client.clone(), report.clone(), mpsc::channel::<()>());
            std::thread::spawn(move || {
                let mut peer = Peer::dial(&client, door, &identity("server"));
                report.send(stall(&mut peer, STREAMS, app, elsewhere)).unwrap();
                let _ = ended.recv();
            });
            end
        })
        .collect();
    let (mut resets, mut most, mut left) = (0, 0, TUNNELS);
    let reported = || {
        most = most.max(gauges.buffered());
        if let Ok(more) = reports.try_recv() {
            resets += more;
            left -= 1;
        }
        left == 0
    };
    wait_for("all peers to be through", reported, || world.server.log());
    assert!(most <= of_pod, "{most} bytes were held");
    assert!(most > of_tunnel, "{most}: the test does not reach what it is about");
    assert!(resets > 0);
    world.server.logged(&["buffered bytes reached the limit of 1048576 for one tunnel"]);
    world.server.logged(&["buffered bytes reached the limit of 6291456 for one pod"]);
    drop(peers);
    wait_for("nothing to be held", || gauges.buffered() == 0, || world.server.log());
    wait_for("all flows to end", || used(&world.server, Kind::Sockets) <= 4, || world.server.log());
}

#[test]
fn what_waits_behind_a_dead_tunnel_is_charged_to_its_pod_until_it_is_taken() {
    let world = World::start("");
    let (sender, taken) = mpsc::channel();
    let (go, may_read) = mpsc::channel::<()>();
    let listener = small_listener(&world);
    let app = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        let (mut stream, _) = listener.accept().unwrap();
        let _ = may_read.recv();
        let mut all = Vec::new();
        stream.read_to_end(&mut all).unwrap();
        sender.send(all.len()).unwrap();
    });
    let client = credential(&world.ca, &identity("client"));
    let mut peer = Peer::dial(&client, SocketAddr::new(world.host(3), 15008), &identity("server"));
    let stream = peer.request(app);
    assert_eq!(peer.wait(|told| matches!(told, Told::Answer(..))), Told::Answer(stream, 200));
    let mut sent = 0;
    while sent < 240 * 1024 {
        sent += peer.put(stream, &[1; 8 * 1024]);
    }
    peer.core.finish(stream);
    peer.flush();
    // When this is answered, all that was sent before has arrived.
    let marker = peer.request(SocketAddr::new(world.host(9), 1));
    assert_eq!(peer.wait(|told| matches!(told, Told::Answer(..))), Told::Answer(marker, 400));
    drop(peer);
    wait_for(
        "end of the tunnel",
        || world.server.shared.accounts.sockets_open(Reporter::Destination) == 0,
        || world.server.log(),
    );
    let gauges = world.server.handle.gauges();
    assert!(gauges.buffered() > 0, "{} bytes were sent, and nobody answers for them", sent);
    drop(go);
    assert_eq!(taken.recv_timeout(PATIENCE).unwrap(), sent);
    wait_for("nothing to be held", || gauges.buffered() == 0, || world.server.log());
}

/// Where an application accepts with little room for what it does not read.
fn small_listener(world: &World) -> TcpListener {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).unwrap();
    socket.set_recv_buffer_size(4096).unwrap();
    // With segments as long as those of loopback the kernel would keep megabytes for the sender.
    socket.set_tcp_mss(536).unwrap();
    socket.bind(&SocketAddr::new(world.host(3), 0).into()).unwrap();
    socket.listen(4096).unwrap();
    TcpListener::from(socket)
}

/// Opens streams, sends more on each than its application's socket takes, and answers how many of them were reset for that.
fn stall(peer: &mut Peer, streams: usize, app: SocketAddr, elsewhere: SocketAddr) -> usize {
    const PIECE: usize = 192 * 1024;
    let streams: Vec<_> = (0..streams).map(|_| peer.request(app)).collect();
    let mut unanswered = streams.len();
    while unanswered > 0 {
        for told in peer.hear() {
            assert!(matches!(told, Told::Answer(_, 200)), "{told:?}");
            unanswered -= 1;
        }
    }
    let mut resets = 0;
    for stream in streams {
        let mut left = PIECE;
        while left > 0 && peer.core.can_send(stream) {
            let sent = peer.put(stream, &vec![1; left]);
            left -= sent;
            if sent == 0 {
                resets += reset_in(&peer.hear());
            }
        }
    }
    // When this is answered, all that was sent before has arrived.
    let marker = peer.request(elsewhere);
    loop {
        let told = peer.hear();
        resets += reset_in(&told);
        if told.contains(&Told::Answer(marker, 400)) {
            return resets;
        }
    }
}

fn reset_in(told: &[Told]) -> usize {
    assert!(!told.contains(&Told::Over), "the engine has ended the tunnel");
    told.iter().filter(|told| matches!(told, Told::Reset(_, ErrorCode::ENHANCE_YOUR_CALM))).count()
}
