// SPDX-License-Identifier: Apache-2.0
//! A load: several threads open connections to several servers and move bytes all the time, until told to stop. Every operation ends, with success, an
//! error, or as hung when nothing happened for a long time; the account tells which.

use std::{
    collections::BTreeMap,
    io::{ErrorKind, Read, Write, stdin},
    net::{Shutdown, SocketAddr, TcpStream},
    sync::{
        Arc, Condvar, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use anyhow::{Context, Error, Result, ensure};
use serde_json::json;

use crate::{client, content};

/// An operation in which nothing happens for this long hangs. Generous: the machine may be busy.
const PATIENCE: Duration = Duration::from_secs(60);
/// Bytes of an upload or download.
const BULK: u64 = 300_000;
/// Questions over one connection that stays open.
const QUESTIONS: usize = 100;

/// What is asked of the servers, in turn.
const KINDS: [Kind; 4] = [Kind::Ask, Kind::Upload, Kind::Download, Kind::Stay];

#[derive(Clone, Copy)]
enum Kind {
    /// Who is calling?
    Ask,
    /// Bytes up, and their digest.
    Upload,
    /// Bytes down, and their digest.
    Download,
    /// Many questions over one connection.
    Stay,
}

/// How it went with one server.
#[derive(Default)]
struct Account {
    good: u64,
    bad: u64,
    hung: u64,
    /// How often each error came.
    errors: BTreeMap<String, u64>,
}

#[derive(Default)]
struct Shared {
    is_over: AtomicBool,
    over: (Mutex<()>, Condvar),
    accounts: Mutex<BTreeMap<SocketAddr, Account>>,
}

/// See `Role::Load`. Each line of standard input is answered with the account so far, its end with the last one.
pub(crate) fn load(servers: &[SocketAddr], threads: usize, rest: Duration) -> Result<()> {
    let shared = Arc::new(Shared::default());
    shared.with(|accounts| accounts.extend(servers.iter().map(|to| (*to, Account::default()))));
    let workers: Vec<_> = (0..threads)
        .map(|number| {
            let (shared, servers) = (Arc::clone(&shared), servers.to_owned());
            std::thread::spawn(move || shared.work(&servers, number, rest))
        })
        .collect();
    for line in stdin().lines() {
        line?;
        println!("{}", shared.account());
    }
    shared.is_over.store(true, Ordering::Release);
    shared.over.1.notify_all();
    for worker in workers {
        worker.join().map_err(|_| Error::msg("a worker panicked"))?;
    }
    println!("{}", shared.account());
    Ok(())
}

impl Shared {
    fn work(&self, servers: &[SocketAddr], number: usize, rest: Duration) {
        for turn in number.. {
            let (to, kind) = (servers[turn % servers.len()], KINDS[turn / servers.len() % KINDS.len()]);
            let outcome = self.operate(to, kind);
            // An operation that the end cut short was neither.
            if self.is_over.load(Ordering::Acquire) {
                return;
            }
            self.note(to, outcome);
            // A refusal comes at once, and the next would too: without a rest there would be nothing but refusals.
            let (lock, over) = &self.over;
            let guard = lock.lock().unwrap_or_else(PoisonError::into_inner);
            let _ = over.wait_timeout_while(guard, rest, |()| !self.is_over.load(Ordering::Acquire));
        }
    }

    fn operate(&self, to: SocketAddr, kind: Kind) -> Result<()> {
        let stream = TcpStream::connect_timeout(&to, PATIENCE).context("connect")?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        stream.set_nodelay(true)?;
        let mut writer = &stream;
        match kind {
            Kind::Ask => {
                let (seen, own) = (client::ask(&stream, "who")?, stream.local_addr()?.ip().to_canonical());
                ensure!(seen == own.to_string(), "the server saw {seen}, not {own}");
            }
            Kind::Upload => {
                writeln!(writer, "digest").context("send")?;
                let digest = content::send(writer, BULK).context("send")?;
                stream.shutdown(Shutdown::Write).context("shutdown")?;
                let answer = client::line(&stream)?;
                ensure!(answer == format!("{BULK} {digest}"), "other bytes arrived");
            }
            Kind::Download => {
                writeln!(writer, "send {BULK}").context("send")?;
                let (length, digest) = content::receive(&stream).context("receive")?;
                // A server that went away may look like one that was done, as without a proxy.
                ensure!(length == BULK, "cut off");
                ensure!(digest == content::send(std::io::sink(), BULK)?, "other bytes came");
            }
            Kind::Stay => {
                writeln!(writer, "echo").context("send")?;
                for number in 0..QUESTIONS {
                    if self.is_over.load(Ordering::Acquire) {
                        break;
                    }
                    let question = format!("question {number}");
                    ensure!(client::ask(&stream, &question)? == question, "another answer");
                }
            }
        }
        // What comes behind an answer is no business of the next connection, but it must end.
        stream.shutdown(Shutdown::Write).or_else(|error| match error.kind() {
            ErrorKind::NotConnected => Ok(()),
            _ => Err(error),
        })?;
        let mut rest = &stream;
        rest.read_to_end(&mut Vec::new()).map(drop).context("end")
    }

    fn note(&self, to: SocketAddr, outcome: Result<()>) {
        self.with(|accounts| {
            let account = accounts.entry(to).or_default();
            let Err(error) = outcome else {
                account.good += 1;
                return;
            };
            let cause = error.root_cause().downcast_ref::<std::io::Error>().map(std::io::Error::kind);
            match cause {
                Some(ErrorKind::TimedOut | ErrorKind::WouldBlock) => account.hung += 1,
                _ => account.bad += 1,
            }
            *account.errors.entry(format!("{error:#}")).or_default() += 1;
        });
    }

    fn account(&self) -> String {
        self.with(|accounts| {
            let one = |(to, account): (&SocketAddr, &mut Account)| {
                json!({
                    "to": to.to_string(), "good": account.good, "bad": account.bad, "hung": account.hung, "errors": account.errors,
                })
            };
            json!(accounts.iter_mut().map(one).collect::<Vec<_>>()).to_string()
        })
    }

    fn with<T>(&self, look: impl FnOnce(&mut BTreeMap<SocketAddr, Account>) -> T) -> T {
        look(&mut self.accounts.lock().unwrap_or_else(PoisonError::into_inner))
    }
}
