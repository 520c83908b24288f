// SPDX-License-Identifier: Apache-2.0
//! The socket between agent and proxy: hostile proxies at a real agent, and a hostile agent for a real proxy.

use std::{
    fs::File,
    io::{self, IoSlice, Read as _},
    os::fd::AsRawFd as _,
    path::Path,
    time::Duration,
};

use anyhow::{Context as _, Result, bail, ensure};
use harness::{Bed, mesh, netns::Netns, wait};
use nix::sys::socket::{ControlMessage, MsgFlags, sendmsg};
use socket2::{Domain, SockAddr, Socket, Type};

use crate::{a_pod_comes_and_goes, carried, log_length, said_little, unharmed};

/// `ZdsHello { version: V1 }`
const HELLO: &[u8] = &[8, 1];
/// `WorkloadResponse { ack: {} }`
const DONE: &[u8] = &[10, 0];
/// `WorkloadRequest { snapshot_sent: {} }`
const SNAPSHOT_SENT: &[u8] = &[26, 0];
const LIMIT: Duration = Duration::from_secs(30);

/// A field of bytes, as protocol buffers write it.
fn field(number: u8, bytes: &[u8]) -> Vec<u8> {
    let (low, high) = ((bytes.len() & 0x7f) as u8, (bytes.len() >> 7) as u8);
    let length = if high == 0 { vec![low] } else { vec![low | 0x80, high] };
    [vec![number << 3 | 2], length, bytes.to_vec()].concat()
}

fn add(uid: &str, [name, namespace, account]: [&str; 3]) -> Vec<u8> {
    let info = [field(1, name.as_bytes()), field(2, namespace.as_bytes()), field(3, account.as_bytes())].concat();
    field(1, &[field(1, uid.as_bytes()), field(2, &info)].concat())
}

fn del(uid: &str) -> Vec<u8> {
    field(2, &field(2, uid.as_bytes()))
}

fn keep(uid: &str) -> Vec<u8> {
    field(5, &field(1, uid.as_bytes()))
}

/// One end of a connection.
struct Link(Socket);

impl Link {
    fn connect(path: &Path) -> Result<Self> {
        let socket = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        socket.connect(&SockAddr::unix(path)?)?;
        Self::of(socket)
    }

    fn of(socket: Socket) -> Result<Self> {
        socket.set_read_timeout(Some(LIMIT))?;
        socket.set_write_timeout(Some(LIMIT))?;
        Ok(Self(socket))
    }

    fn send(&self, bytes: &[u8], files: &[&File]) -> io::Result<()> {
        let fds: Vec<_> = files.iter().map(|file| file.as_raw_fd()).collect();
        let rights = [ControlMessage::ScmRights(&fds)];
        let control = if fds.is_empty() { &[][..] } else { &rights[..] };
        sendmsg::<()>(self.0.as_raw_fd(), &[IoSlice::new(bytes)], control, MsgFlags::MSG_NOSIGNAL, None)?;
        Ok(())
    }

    /// The next packet; none at the end. Without room for descriptors the kernel closes those that came with it.
    fn receive(&self) -> Result<Vec<u8>> {
        let mut bytes = [0; 2048];
        match (&self.0).read(&mut bytes) {
            Ok(length) => Ok(bytes[..length].to_vec()),
            Err(error) if error.kind() == io::ErrorKind::ConnectionReset => Ok(Vec::new()),
            Err(error) => Err(error).context("nothing comes, and it does not end"),
        }
    }

    fn ends(&self) -> Result<()> {
        while !self.receive()?.is_empty() {}
        Ok(())
    }
}

/// Garbage of every kind, and more silent connections than there may be, while pods come and go.
pub(crate) fn strangers(bed: &mut Bed) -> Result<()> {
    let before = log_length(bed, "n1-agent")?;
    unharmed(bed, |bed| {
        let path = mesh::zds_socket(bed.world.node("n1")?);
        let file = File::open("/dev/null")?;
        let silent: Vec<Link> = (0..500).map(|_| Link::connect(&path)).collect::<Result<_>>()?;
        for round in 0..20 {
            let packets: [(&[u8], &[&File]); 7] = [
                (b"\xff\xff\xff", &[]),
                (&[8, 7], &[]),
                (&[0; 1500], &[]),
                (b"GET / HTTP/1.1\r\n\r\n", &[]),
                (HELLO, &[&file]),
                (HELLO, &[&file, &file]),
                (HELLO, &[&file; 64]),
            ];
            for (bytes, files) in packets {
                let link = Link::connect(&path)?;
                link.send(bytes, files)?;
                link.ends().with_context(|| format!("round {round}: {bytes:?} with {} descriptors", files.len()))?;
            }
        }
        a_pod_comes_and_goes(bed, "stranger")?;
        // At most so many are left of those that say nothing.
        for link in &silent[..400] {
            link.ends().context("a silent connection")?;
        }
        Ok(())
    })?;
    said_little(bed, "n1-agent", before, 64 * 1024)
}

/// It is the newest for a moment, so a new pod is offered to it first.
pub(crate) fn wedged(bed: &mut Bed) -> Result<()> {
    unharmed(bed, |bed| {
        let path = mesh::zds_socket(bed.world.node("n1")?);
        let wedged = Link::connect(&path)?;
        wedged.send(HELLO, &[])?;
        ensure!(!wedged.receive()?.is_empty(), "it is given nothing");
        a_pod_comes_and_goes(bed, "patient")?;
        wedged.ends()
    })
}

/// Plays the agent, badly, to the real proxy, which carries pods all the time.
pub(crate) fn mad_agent(bed: &mut Bed) -> Result<()> {
    let before = log_length(bed, "n1-ztunnel")?;
    unharmed(bed, |bed| {
        bed.mesh.take("n1-agent")?.kill()?;
        let path = mesh::zds_socket(bed.world.node("n1")?);
        let _ = std::fs::remove_file(&path);
        let listener = Socket::new(Domain::UNIX, Type::SEQPACKET, None)?;
        listener.bind(&SockAddr::unix(&path)?)?;
        listener.listen(4)?;
        listener.set_read_timeout(Some(LIMIT))?;
        breaks_the_protocol(bed, &listener)?;
        absurd_pods(&listener)?;
        carried(bed)?;
        drop(listener);
        std::fs::remove_file(&path)?;
        let node = bed.world.node("n1")?;
        bed.mesh.start_agent(&bed.world, node)?;
        bed.mesh.ready(node)?;
        bed.mesh.settle(&bed.world)?;
        wait::until("connections to be carried", mesh::SETTLING, || carried(bed))?;
        a_pod_comes_and_goes(bed, "afterwards")
    })?;
    said_little(bed, "n1-ztunnel", before, 128 * 1024)
}

fn accept(listener: &Socket) -> Result<Link> {
    let (socket, _) = listener.accept().context("the proxy does not come back")?;
    let link = Link::of(socket)?;
    ensure!(link.receive()? == HELLO, "no hello");
    Ok(link)
}

fn breaks_the_protocol(bed: &Bed, listener: &Socket) -> Result<()> {
    let file = File::open("/dev/null")?;
    let someone = ["a", "demo", "a"];
    let packets: [(&str, Vec<u8>, Vec<&File>); 7] = [
        ("garbage", vec![0xff; 30], vec![]),
        ("too long", vec![0; 1500], vec![]),
        ("add without a descriptor", add("x", someone), vec![]),
        ("add with two", add("x", someone), vec![&file, &file]),
        ("add with fifty", add("x", someone), vec![&file; 50]),
        ("add of nobody", field(1, &field(1, b"x")), vec![&file]),
        ("snapshot with a descriptor", SNAPSHOT_SENT.to_vec(), vec![&file]),
    ];
    for (what, bytes, files) in &packets {
        let link = accept(listener).context(*what)?;
        link.send(bytes, files)?;
        let answer = String::from_utf8_lossy(&link.receive().context(*what)?).into_owned();
        ensure!(answer.contains("failure to "), "to {what} it says {answer:?}");
        link.ends().context(*what)?;
        carried(bed).context(*what)?;
    }
    // Hangs up without any word.
    accept(listener).map(drop)
}

/// In one session, which none of it ends.
fn absurd_pods(listener: &Socket) -> Result<()> {
    let spare = Netns::create("spare")?;
    let netns = File::open(spare.path())?;
    let null = File::open("/dev/null")?;
    let (pipe, _other_end) = nix::unistd::pipe()?;
    let pipe = File::from(pipe);
    let mount = File::open("/proc/self/ns/mnt")?;
    let link = accept(listener)?;
    let say = |bytes: &[u8], files: &[&File]| -> Result<String> {
        link.send(bytes, files)?;
        let answer = link.receive()?;
        if answer == DONE {
            return Ok(String::new());
        }
        if answer.is_empty() {
            bail!("the proxy hung up");
        }
        Ok(String::from_utf8_lossy(&answer).into_owned())
    };
    let yes = |what: &str, answer: String| -> Result<()> {
        ensure!(answer.is_empty(), "{what}: {answer}");
        Ok(())
    };
    for (what, file) in [("/dev/null", &null), ("a pipe", &pipe), ("another kind of namespace", &mount)] {
        let answer = say(&add("bogus", ["a", "demo", "a"]), &[file])?;
        ensure!(answer.contains("failure to start proxy"), "{what} as a pod's network: {answer:?}");
    }
    yes("taken back", say(&del("bogus"), &[])?)?;
    yes("never there", say(&del("unknown"), &[])?)?;
    yes("never there, kept", say(&keep("unknown"), &[])?)?;
    let long = "\u{1b}[2J\n\"\\\u{0}".repeat(30);
    let absurd = [&long, "../../etc", ""];
    let uid = "\r\n../\u{202e}x";
    yes("absurd names", say(&add(uid, absurd), &[&netns])?)?;
    yes("the same again", say(&add(uid, absurd), &[&netns])?)?;
    yes("as somebody else", say(&add(uid, ["b", "demo", "b"]), &[&netns])?)?;
    yes("taken back", say(&del(uid), &[])?)?;
    yes("taken back twice", say(&del(uid), &[])?)
}
