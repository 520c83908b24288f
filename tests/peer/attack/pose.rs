// SPDX-License-Identifier: Apache-2.0
//! A server on the HBONE port that is not what it should be. Each line of standard input says for whom (an address, or `*`) it behaves how from now on, and is
//! answered by what it saw of them until then: how many connections, how many requests, how many bytes of applications.

use std::{
    collections::BTreeMap,
    io::{BufRead, Read, Write, stdin},
    net::{IpAddr, Ipv6Addr, Shutdown, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use anyhow::Result;
use rustls::ServerConfig;
use socket2::SockRef;

use super::{
    credentials::{Claim, Flaw},
    link::Link,
    raw::noise,
    tunnel::{
        ACK, CONTINUATION, DATA, END_HEADERS, END_STREAM, GOAWAY, HEADERS, PING, PUSH_PROMISE, RST_STREAM, SETTINGS,
        WINDOW_UPDATE, field, frame, take_raw_frames,
    },
};

/// What was seen of one client, or of all that are not named.
#[derive(Default)]
struct Client {
    manner: String,
    connections: u64,
    requests: u64,
    bytes: u64,
}

/// How to behave towards whom.
#[derive(Clone, Default)]
struct Clients(Arc<Mutex<BTreeMap<String, Client>>>);

impl Clients {
    /// Behaves like this from now on; answers what was seen until now.
    fn set(&self, who: &str, manner: &str) -> Client {
        let new = Client { manner: manner.to_owned(), ..Client::default() };
        self.0.lock().unwrap_or_else(PoisonError::into_inner).insert(who.to_owned(), new).unwrap_or_default()
    }

    /// Notes something about a client, and says how to behave towards it.
    fn note(&self, address: IpAddr, what: impl FnOnce(&mut Client)) -> String {
        let mut clients = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let named = address.to_canonical().to_string();
        let who = if clients.contains_key(&named) { named } else { "*".to_owned() };
        let client = clients.entry(who).or_default();
        what(client);
        client.manner.clone()
    }
}

/// Serves until standard input is closed.
pub(crate) fn serve(claim: &Claim, port: u16) -> Result<()> {
    let listener = TcpListener::bind((Ipv6Addr::UNSPECIFIED, port))?;
    let clients = Clients::default();
    {
        let (claim, clients) = (claim.clone(), clients.clone());
        std::thread::spawn(move || {
            let mut configs: BTreeMap<String, Arc<ServerConfig>> = BTreeMap::new();
            for socket in listener.incoming() {
                let Ok(socket) = socket else { continue };
                let Ok(address) = socket.peer_addr() else { continue };
                let manner = clients.note(address.ip(), |client| client.connections += 1);
                let flaw = Flaw::parse(&manner).unwrap_or(Flaw::Nothing);
                let made = configs.get(&manner).cloned().map_or_else(|| claim.server(flaw), Ok);
                let Ok(config) = made else { continue };
                configs.insert(manner.clone(), config.clone());
                let clients = clients.clone();
                std::thread::spawn(move || {
                    // The other end leaving is what is being tested.
                    let _ = receive(socket, &manner, config, (address.ip(), &clients));
                });
            }
        });
    }
    println!("posing");
    for line in stdin().lock().lines() {
        let line = line?;
        let (who, manner) = line.split_once(' ').unwrap_or(("*", &line));
        let Client { connections, requests, bytes, .. } = clients.set(who, manner);
        println!("{connections} connections {requests} requests {bytes} bytes");
    }
    Ok(())
}

fn receive(
    mut socket: TcpStream,
    manner: &str,
    config: Arc<ServerConfig>,
    (address, clients): (IpAddr, &Clients),
) -> Result<()> {
    match manner {
        "close" => {
            // A closed socket that is still written to is reset, and that is another manner.
            socket.shutdown(Shutdown::Write)?;
            socket.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        "reset" => return Ok(SockRef::from(&socket).set_linger(Some(Duration::ZERO))?),
        "silent" => {
            // Whatever comes is left where it is, until the other end goes.
            socket.read_to_end(&mut Vec::new())?;
            return Ok(());
        }
        "plaintext" => return Ok(socket.write_all(b"HTTP/1.1 400 Bad Request\r\ncontent-length: 0\r\n\r\n")?),
        "garbage" => return Ok(socket.write_all(&noise(20_000))?),
        _ => {}
    }
    let mut link = Link::answer(socket, config)?;
    link.until(|link| !link.is_shaking())?;
    match manner {
        "no-settings" => {}
        "answers-in-http1" => {
            link.send(b"HTTP/1.1 200 OK\r\n\r\n")?;
        }
        _ => {
            link.send(&frame(SETTINGS, 0, 0, &[]))?;
        }
    }
    let preface = 24;
    link.until(|link| link.arrived.len() >= preface)?;
    if link.arrived.len() < preface {
        return Ok(());
    }
    link.arrived.drain(..preface);
    while link.ended.is_none() {
        link.pump(Duration::from_millis(500))?;
        for (kind, flags, stream, payload) in take_raw_frames(&mut link.arrived) {
            match kind {
                SETTINGS if flags & ACK == 0 && manner != "no-settings" => {
                    link.send(&frame(SETTINGS, ACK, 0, &[]))?;
                }
                PING if flags & ACK == 0 => {
                    link.send(&frame(PING, ACK, 0, &payload))?;
                }
                HEADERS => {
                    // A tunnel may outlive the manner it was met with.
                    let manner = clients.note(address, |client| client.requests += 1);
                    asked(&mut link, &manner, stream)?;
                }
                DATA => {
                    clients.note(address, |client| client.bytes += payload.len() as u64);
                }
                _ => {}
            }
        }
    }
    Ok(())
}

/// What comes back for a request.
fn asked(link: &mut Link, manner: &str, stream: u32) -> Result<()> {
    let cancel = |code: u8| frame(RST_STREAM, 0, stream, &[0, 0, 0, code]);
    let accept = frame(HEADERS, END_HEADERS, stream, &[0x88]);
    let many = |one: Vec<u8>| one.repeat(20_000);
    let answer = match manner {
        "teapot" => frame(HEADERS, END_HEADERS | END_STREAM, stream, &[&[0x08, 3][..], b"418"].concat()),
        "leaves" => frame(GOAWAY, 0, 0, &[0; 8]),
        "refuses-streams" => cancel(7),
        "resets-streams" => cancel(2),
        "answers-and-resets" => [accept, cancel(8)].concat(),
        "data-before-the-answer" => frame(DATA, 0, stream, b"HTTP/1.1 200 OK\r\n\r\n"),
        "answer-without-status" => frame(HEADERS, END_HEADERS, stream, &field(b"x", b"y")),
        "pushes" => frame(PUSH_PROMISE, END_HEADERS, stream, &[0, 0, 0, 2, 0x82]),
        "more-than-the-window" => [accept, frame(DATA, 0, stream, &vec![7; 300 << 10])].concat(),
        "pings" => many(frame(PING, 0, 0, b"whatever")),
        "settings" => many(frame(SETTINGS, 0, 0, &[])),
        "empty-data" => [accept, many(frame(DATA, 0, stream, &[]))].concat(),
        "window-updates" => many(frame(WINDOW_UPDATE, 0, 0, &[0, 0, 0, 1])),
        "interim-answers" => many(frame(HEADERS, END_HEADERS, stream, &[&[0x08, 3][..], b"103"].concat())),
        "continuations" => [frame(HEADERS, 0, stream, &[0x88]), many(frame(CONTINUATION, 0, stream, &[0x88]))].concat(),
        "long-answer" => {
            let block = [vec![0x88], field(&[b'n'; 900], &[b'v'; 20_000])].concat();
            [frame(HEADERS, 0, stream, &block[..16_000]), frame(CONTINUATION, END_HEADERS, stream, &block[16_000..])]
                .concat()
        }
        // "mute" and all whose fault comes earlier.
        _ => return Ok(()),
    };
    link.send(&answer)?;
    Ok(())
}
