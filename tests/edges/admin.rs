// SPDX-License-Identifier: Apache-2.0
//! The HTTP ports of all programs.

use std::{
    io::{Read as _, Write as _},
    net::{Ipv4Addr, SocketAddr, TcpStream},
};

use anyhow::{Context as _, Result, ensure};
use harness::{
    Bed, http,
    netns::Netns,
    wait::{self, LONG_PATIENCE},
};

use crate::unharmed;

/// Where each port is, and a page of it that answers 200.
fn ports(bed: &Bed) -> Result<Vec<(&Netns, u16, &'static str)>> {
    let node = &bed.world.node("n1")?.netns;
    let control = &bed.world.control;
    Ok(vec![
        (node, 15000, "/config_dump"),
        (node, 15020, "/metrics"),
        (node, 15021, "/healthz/ready"),
        (node, 8000, "/readyz"),
        (node, 15014, "/metrics"),
        (node, 9876, "/debug/pods"),
        (control, 15014, "/ready"),
        (control, 8080, "/debug/resources"),
    ])
}

fn connect(netns: &Netns, port: u16, count: usize) -> Result<Vec<TcpStream>> {
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
    let one = |_| {
        let stream = TcpStream::connect_timeout(&address, LONG_PATIENCE)?;
        stream.set_read_timeout(Some(LONG_PATIENCE))?;
        stream.set_write_timeout(Some(LONG_PATIENCE))?;
        Ok(stream)
    };
    netns.run(|| (0..count).map(one).collect::<Result<_>>()).with_context(|| format!("connect to port {port}"))
}

fn answers(netns: &Netns, port: u16, path: &str) -> Result<()> {
    wait::until(&format!("an answer of port {port}"), LONG_PATIENCE, || {
        let answer = http::fetch(netns, "GET", SocketAddr::from((Ipv4Addr::LOCALHOST, port)), path)?;
        ensure!(answer.status == 200, "{path} says {}: {:.200}", answer.status, answer.body);
        Ok(())
    })
}

/// Silent ones, slow ones, and some that do not read what they asked for.
pub(crate) fn besieged(bed: &mut Bed) -> Result<()> {
    unharmed(bed, |bed| {
        for (netns, port, path) in ports(bed)? {
            let mut idle = Vec::new();
            for _ in 0..4 {
                for (number, mut stream) in connect(netns, port, 250)?.into_iter().enumerate() {
                    // One that was sent away already is no mistake.
                    let _ = match number % 4 {
                        0 => stream.write_all(b"GET / HTTP/1.1\r\nhost:"),
                        1 => stream.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").as_bytes()),
                        2 => stream.write_all(b"POST /logging HTTP/1.1\r\nhost: x\r\ncontent-length: 1000\r\n\r\nx"),
                        _ => Ok(()),
                    };
                    idle.push(stream);
                }
                answers(netns, port, path).with_context(|| format!("beside {} idle clients", idle.len()))?;
            }
        }
        Ok(())
    })
}

pub(crate) fn absurd(bed: &mut Bed) -> Result<()> {
    unharmed(bed, |bed| {
        for (netns, port, path) in ports(bed)? {
            let long = format!("GET {path} HTTP/1.1\r\nhost: x\r\nx: {}\r\n\r\n", "y".repeat(1 << 20));
            let many = format!("GET {path} HTTP/1.1\r\n{}\r\n", "a: b\r\n".repeat(100_000));
            let endless = format!(
                "POST {path} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n{}",
                "4000\r\n".to_owned() + &"z".repeat(1 << 20)
            );
            let garbage = "\u{16}\u{3}\u{1}\u{0}\u{7f}".repeat(1000);
            for request in [&long, &many, &endless, &garbage] {
                let mut stream = connect(netns, port, 1)?.remove(0);
                let _ = stream.write_all(request.as_bytes());
                let mut answer = Vec::new();
                // Refused or cut off, and never served.
                let _ = stream.read_to_end(&mut answer);
                ensure!(
                    !answer.starts_with(b"HTTP/1.1 200"),
                    "port {port} answers {:.100} with {:.200}",
                    request,
                    String::from_utf8_lossy(&answer)
                );
            }
            let mut ahead = connect(netns, port, 1)?.remove(0);
            let _ = ahead.write_all(format!("GET {path} HTTP/1.1\r\nhost: x\r\n\r\n").repeat(300).as_bytes());
            answers(netns, port, path).context("beside a client that sends ahead and reads nothing")?;
        }
        Ok(())
    })
}
