// SPDX-License-Identifier: Apache-2.0
//! Options of sockets, as the kernel sees them.

use std::io::Read as _;
use std::net::TcpStream;

use super::*;

fn listener(listen: ListenOptions) -> Listener {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    Listener::bind(address, &SocketOptions::default().at_home(), listen).unwrap()
}

const PLAIN: ListenOptions = ListenOptions { keepalive: false, transparent: Transparent::Never, near: false };

/// What was accepted, and the other end.
fn accepted(listener: &Listener) -> (Stream, TcpStream) {
    let other = TcpStream::connect(listener.local().unwrap()).unwrap();
    (listener.accept().unwrap().0, other)
}

#[test]
fn a_dialled_connection_gets_keepalive_when_it_is_asked_for() {
    let listener = listener(PLAIN);
    let dial = Dial { to: listener.local().unwrap(), from: None, hurry: false, speaks: false };
    let options = SocketOptions { user_timeout: true, ..SocketOptions::default().at_home() };
    let dialled = dial.start(&options).unwrap().stream;
    assert!(!dialled.socket.keepalive().unwrap());
    dialled.keep_alive(&options).unwrap();
    let socket = &dialled.socket;
    let kept =
        (socket.keepalive().unwrap(), socket.tcp_keepalive_time().unwrap(), socket.tcp_keepalive_retries().unwrap());
    assert_eq!(kept, (true, Duration::from_secs(180), 9));
    assert_eq!(socket.tcp_user_timeout().unwrap(), Some(Duration::from_secs(180 * 10)));
}

#[test]
fn the_end_of_a_handshake_waits_for_bytes_that_are_there() {
    let waits = || {
        let listener = listener(PLAIN);
        let dial = Dial { to: listener.local().unwrap(), from: None, hurry: false, speaks: true };
        let dialled = dial.start(&SocketOptions::default().at_home()).unwrap();
        assert!(dialled.connected);
        let waits = listener.accept().is_err();
        dialled.stream.write(b"hello").unwrap();
        let (stream, _) = listener.accept().unwrap();
        let mut heard = [0; 8];
        assert_eq!(stream.read(&mut heard).unwrap(), 5);
        waits
    };
    // The kernel sends it after 200 ms at the latest, which a busy machine may need to get here.
    assert!((0..10).any(|_| waits()));
}

#[test]
fn accepted_connections_inherit_keepalive() {
    let (stream, _other) = accepted(&listener(ListenOptions { keepalive: true, ..PLAIN }));
    assert!(stream.socket.keepalive().unwrap());
}

/// Gives a socket a congestion control that paces, if the kernel lets us; most have no such one by themselves.
fn pace(socket: &Socket) {
    if let Err(error) = setsockopt(socket, TcpCongestion, &OsString::from("bbr")) {
        eprintln!("no socket is paced here, so that none is any longer shows little: bbr: {error}");
    } else {
        assert!(is_paced(socket));
    }
}

#[test]
fn connections_between_neighbours_are_not_paced() {
    let near = listener(ListenOptions { near: true, ..PLAIN });
    let (stream, _other) = accepted(&near);
    assert!(!is_paced(&stream.socket));
    let dialled = Dial { to: near.local().unwrap(), from: None, hurry: true, speaks: false }
        .start(&SocketOptions::default().at_home())
        .unwrap();
    assert_eq!(getsockopt(&dialled.stream.socket, TcpCongestion).unwrap(), "reno");
}

#[test]
fn accepted_connections_inherit_that_their_listener_is_not_paced() {
    let near = listener(PLAIN);
    pace(&near.socket);
    hurry(&near.socket);
    let (stream, _other) = accepted(&near);
    assert_eq!(getsockopt(&stream.socket, TcpCongestion).unwrap(), "reno");
}

#[test]
fn bytes_before_an_end_arrive_with_it() {
    let (witness, mut heard) = accepted(&listener(PLAIN));
    let mut is_held_back = || {
        let (stream, mut other) = accepted(&listener(PLAIN));
        assert_eq!(stream.write_before_end(b"answer").unwrap(), 6);
        // What is sent after them elsewhere has arrived.
        assert_eq!(witness.write(b"x").unwrap(), 1);
        heard.read_exact(&mut [0]).unwrap();
        other.set_nonblocking(true).unwrap();
        let early = other.peek(&mut [0]).map_err(|error| error.kind());
        stream.finish().unwrap();
        other.set_nonblocking(false).unwrap();
        let mut arrived = Vec::new();
        other.read_to_end(&mut arrived).unwrap();
        assert_eq!(arrived, b"answer");
        early == Err(io::ErrorKind::WouldBlock)
    };
    // The kernel holds them back for 200 ms at most, and a busy machine may keep us from looking as long as that.
    assert!((0..20).any(|_| is_held_back()), "they never wait for the end");
}
