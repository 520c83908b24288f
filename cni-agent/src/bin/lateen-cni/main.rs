// SPDX-License-Identifier: Apache-2.0
//! The CNI plugin: called by the container runtime for every sandbox, it asks the node's agent, and prints what the runtime wants to hear.
//!
//! It decides nothing that the agent can decide, holds no credentials, touches no network namespace, and never starts a pod that it cannot account for: with
//! no agent to ask, only a recent snapshot that knows the pod's namespace to be outside the mesh lets it start. On standard output there is nothing but the
//! result or the error; logs go to standard error.

mod ask;
mod log;

use std::fs;
use std::io::{self, Read, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::{ExitCode, exit};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use cni_agent::cni::question::{Ip, Question, path};
use cni_agent::cni::snapshot::{self, Verdict};
use cni_agent::cni::{
    Admission, CniError, Code, Command, Config, Environment, Pod, Sandbox, Version, addresses, parse_arguments, result,
    versions,
};

use crate::ask::{Agent, Said};
use crate::log::Log;

/// How long an `ADD` waits for the agent. Runtimes give a sandbox minutes.
const PATIENCE_ADD: Duration = Duration::from_secs(10);
const PATIENCE_CHECK: Duration = Duration::from_secs(5);
/// A sandbox goes away whether the agent knows or not.
const PATIENCE_DELETE: Duration = Duration::from_secs(2);
const PATIENCE_STATUS: Duration = Duration::from_secs(2);
/// More than a thousand plugins could fill.
const MAX_INPUT: u64 = 16 * 1024 * 1024;

fn main() -> ExitCode {
    let environment = Environment::read(|name| std::env::var_os(name));
    let command = environment.as_ref().ok().and_then(|environment| environment.command().ok());
    // A release aborts in a panic: this hook is the last that runs, so it answers.
    std::panic::set_hook(Box::new(move |panic| {
        let error = CniError::new(Code::Bug, "the CNI plugin panicked: this is a bug, please report it").because(panic);
        exit(i32::from(answer(command, "", Err(error), &Log::new(command))));
    }));
    let (mut version, mut log) = (String::new(), Log::new(command));
    let outcome = environment.and_then(|environment| call(&environment, &mut version, &mut log));
    ExitCode::from(answer(command, &version, outcome, &log))
}

/// Prints what came of it, and gives the exit status.
fn answer(command: Option<Command>, version: &str, outcome: Result<String, CniError>, log: &Log) -> u8 {
    let (text, status) = match outcome {
        Ok(text) => (text, 0),
        // A sandbox that cannot be taken down helps nobody; what is left is the agent's to find (cni-agent.md P-05, K-19).
        Err(error) if command == Some(Command::Del) => {
            log.warn("DEL goes on in spite of an error", &error);
            return 0;
        }
        Err(error) => {
            log.error("refused", &error);
            (error.to_json(version), 1)
        }
    };
    let mut stdout = io::stdout();
    match stdout.write_all(text.as_bytes()).and_then(|()| stdout.flush()) {
        Ok(()) => status,
        Err(error) => {
            let error = CniError::new(Code::Io, "cannot write the result to standard output").because(error);
            log.error("refused", &error);
            1
        }
    }
}

/// One call of the runtime: what is to be printed.
fn call(environment: &Environment, version: &mut String, log: &mut Log) -> Result<String, CniError> {
    let command = environment.command()?;
    let input = read_input()?;
    *version = Config::claimed_version(&input);
    if command == Command::Version {
        return Ok(versions(version));
    }
    let config = Config::parse(&input)?;
    log.level = config.log_level;
    match command {
        // Answered above.
        Command::Version => Ok(versions(version)),
        Command::Add => add(environment, config, log),
        Command::Del => delete(environment, &config, log),
        Command::Check => {
            since(&config, Version::V0_4_0, command)?;
            check(environment, &config, log)
        }
        Command::Status => {
            since(&config, Version::V1_1_0, command)?;
            status(&config)
        }
        // The agent finds out by itself which sandboxes are gone.
        Command::Gc => since(&config, Version::V1_1_0, command).map(|()| String::new()),
    }
}

fn read_input() -> Result<Vec<u8>, CniError> {
    let mut input = Vec::new();
    match io::stdin().take(MAX_INPUT + 1).read_to_end(&mut input) {
        Ok(length) if length as u64 > MAX_INPUT => {
            Err(CniError::new(Code::InvalidConfig, "the network configuration on standard input is too long"))
        }
        Ok(_) => Ok(input),
        Err(error) => Err(CniError::new(Code::Io, "cannot read the network configuration").because(error)),
    }
}

fn since(config: &Config, first: Version, command: Command) -> Result<(), CniError> {
    if config.version >= first {
        return Ok(());
    }
    let (command, version) = (command.as_str(), config.version);
    Err(CniError::new(Code::IncompatibleVersion, format!("cniVersion {version} has no {command}"))
        .because(format!("{command} came with {first}")))
}

/// The contract of `ADD`: success means that the pod is in the mesh, or is not to be; nothing runs in it before.
fn add(environment: &Environment, config: Config, log: &mut Log) -> Result<String, CniError> {
    let sandbox = environment.sandbox(Command::Add)?;
    let pod = parse_arguments(&environment.arguments)?;
    check_netns(&sandbox.netns)?;
    log.about(pod.as_ref(), &sandbox);
    match config.admit(pod) {
        Admission::Start(why) => log.info("started without asking the agent", why),
        Admission::Ask(pod) => admit(&config, &pod, sandbox, log)?,
    }
    Ok(result(config.version, config.previous))
}

fn admit(config: &Config, pod: &Pod, sandbox: Sandbox, log: &Log) -> Result<(), CniError> {
    let question = question(config, pod, sandbox)?;
    match Agent::new(&config.run_dir, PATIENCE_ADD).ask(path::ADD, &question) {
        Ok(Said { status: 200, text }) if text.is_empty() => log.info("in the mesh", ""),
        Ok(Said { status: 200, text }) => log.info("not in the mesh", &text),
        Ok(said) if !said.is_no_answer() => {
            return Err(CniError::new(
                Code::Refused,
                format!("the mesh agent did not admit pod {}/{}: {}", pod.namespace, pod.name, said.text),
            ));
        }
        silent => {
            let why = silent.map_or_else(|error| error.to_string(), |said| said.text);
            decide_alone(config, pod, &why)?;
            log.warn("started outside the mesh by the agent's snapshot, for the agent did not answer", &why);
        }
    }
    Ok(())
}

/// The agent did not answer: only what is known to be outside the mesh may start.
fn decide_alone(config: &Config, pod: &Pod, why: &str) -> Result<(), CniError> {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
    let hold = match snapshot::file::read(&config.run_dir) {
        Ok(snapshot) => match snapshot.decide(&pod.namespace, now, config.snapshot_max_age) {
            Verdict::Start => return Ok(()),
            Verdict::Hold(reason) => reason,
        },
        Err(error) => error.to_string(),
    };
    let (namespace, name) = (&pod.namespace, &pod.name);
    let message = format!(
        "the mesh agent of this node does not answer, and {hold}. Pod {namespace}/{name} is held until it does: check the agent's pod on this node \
         (its name starts with {:?}). To let pods of namespaces outside the mesh start without it, name them in exclude_namespaces",
        config.agent_pod_prefix
    );
    Err(CniError::new(Code::TryAgainLater, message).because(why))
}

/// The contract of `DEL`: it succeeds.
fn delete(environment: &Environment, config: &Config, log: &mut Log) -> Result<String, CniError> {
    let sandbox = environment.sandbox(Command::Del)?;
    let pod = parse_arguments(&environment.arguments)?;
    log.about(pod.as_ref(), &sandbox);
    if let Admission::Ask(pod) = config.admit(pod) {
        let question = question(config, &pod, sandbox)?;
        match Agent::new(&config.run_dir, PATIENCE_DELETE).ask(path::DELETE, &question) {
            Ok(Said { status: 200, .. }) => log.info("forgotten", ""),
            Ok(said) => log.warn("the agent does not forget the sandbox", &said.text),
            Err(error) => log.warn("the agent does not know yet that the sandbox is gone", &error),
        }
    }
    Ok(String::new())
}

/// The contract of `CHECK`: it fails if the pod is to be in the mesh and is not, or if that cannot be found out.
fn check(environment: &Environment, config: &Config, log: &mut Log) -> Result<String, CniError> {
    let sandbox = environment.sandbox(Command::Check)?;
    let pod = parse_arguments(&environment.arguments)?;
    check_netns(&sandbox.netns)?;
    log.about(pod.as_ref(), &sandbox);
    let Admission::Ask(pod) = config.admit(pod) else { return Ok(String::new()) };
    let question = question(config, &pod, sandbox)?;
    match Agent::new(&config.run_dir, PATIENCE_CHECK).ask(path::CHECK, &question) {
        Ok(Said { status: 200, .. }) => Ok(String::new()),
        Ok(said) if !said.is_no_answer() => Err(CniError::new(
            Code::Changed,
            format!("pod {}/{} is not as it should be: {}", pod.namespace, pod.name, said.text),
        )),
        silent => {
            let why = silent.map_or_else(|error| error.to_string(), |said| said.text);
            Err(CniError::new(
                Code::TryAgainLater,
                "the mesh agent of this node does not answer: check the agent's pod on this node",
            )
            .because(why))
        }
    }
}

fn status(config: &Config) -> Result<String, CniError> {
    if !config.status_follows_agent {
        return Ok(String::new());
    }
    let why = match Agent::new(&config.run_dir, PATIENCE_STATUS).ask_status() {
        Ok(Said { status: 200, .. }) => return Ok(String::new()),
        Ok(said) => said.text,
        Err(error) => error.to_string(),
    };
    let message = "the mesh agent of this node does not answer, pods in the mesh cannot start: check the agent's pod on this node";
    Err(CniError::new(Code::NotAvailable, message).because(why))
}

fn question(config: &Config, pod: &Pod, sandbox: Sandbox) -> Result<Question, CniError> {
    let ips = config.previous.as_ref().map(addresses).transpose()?.unwrap_or_default();
    Ok(Question {
        netns: sandbox.netns,
        pod_name: pod.name.clone(),
        pod_namespace: pod.namespace.clone(),
        ips: ips.into_iter().map(Ip::new).collect(),
        pod_uid: pod.uid.clone(),
        container_id: Some(sandbox.container_id),
        if_name: Some(sandbox.interface),
    })
}

/// A sandbox has a network namespace of its own: a runtime that passes the node's would have the node itself enrolled.
fn check_netns(netns: &Path) -> Result<(), CniError> {
    let identity = |path: &Path| fs::metadata(path).map(|file| (file.dev(), file.ino()));
    let found = identity(netns).map_err(|error| {
        let message = format!("the network namespace {} cannot be looked at", netns.display());
        CniError::new(Code::InvalidNetns, message).because(error)
    })?;
    match identity(Path::new("/proc/self/ns/net")) {
        Ok(own) if own == found => Err(CniError::new(
            Code::InvalidNetns,
            format!("the network namespace {} is the node's own, not that of a pod", netns.display()),
        )),
        Ok(_) => Ok(()),
        Err(error) => Err(CniError::new(Code::Io, "cannot look at /proc/self/ns/net").because(error)),
    }
}
