// SPDX-License-Identifier: Apache-2.0
//! Connections of which nothing is known but where they go.

use anyhow::{Result, ensure};
use harness::Bed;

use super::{cases::with_objects, eventually};

fn route(kind: &str, parent: &str, backends: &str) -> String {
    let (version, hostnames) = match kind {
        "TLSRoute" => ("v1alpha3", format!("hostnames: [{parent}.demo.svc.cluster.local], ")),
        _ => ("v1alpha2", String::new()),
    };
    format!(
        "{{apiVersion: gateway.networking.k8s.io/{version}, kind: {kind}, metadata: {{namespace: demo, name: bytes}}, spec: {{{hostnames}\
         parentRefs: [{{group: '', kind: Service, name: {parent}}}], rules: [{{backendRefs: {backends}}}]}}}}"
    )
}

/// Who answers at the port of `talk` that is declared as TCP; nobody where the connection is closed.
fn name(bed: &Bed) -> Result<String> {
    let said = bed.pod("demo/client")?.run(&["peer", "name", "10.96.0.12:9000"])?;
    Ok(if said.is_good() { said.stdout.trim().to_owned() } else { String::new() })
}

fn is(bed: &Bed, wanted: &str) -> Result<()> {
    eventually(&format!("an answer of {wanted:?}"), || {
        let name = name(bed)?;
        ensure!(name == wanted, "{name:?}");
        Ok(())
    })
}

/// Half of 40: outside of these bounds in fewer than one of 100,000 runs.
pub(crate) fn weights(bed: &mut Bed) -> Result<()> {
    let (one, two) = ("name: talk, port: 9000", "name: talk-two, port: 9000");
    let with = |backends: String, bed: &mut Bed, check: fn(&Bed) -> Result<()>| {
        with_objects(bed, &route("TCPRoute", "talk", &backends), check)
    };
    is(bed, "one")?;
    with(format!("[{{{two}}}]"), bed, |bed| is(bed, "two"))?;
    is(bed, "one")?;
    with(format!("[{{{one}, weight: 1}}, {{{two}, weight: 1}}]"), bed, |bed| {
        is(bed, "two")?;
        let names: Vec<String> = (0..40).map(|_| name(bed)).collect::<Result<_>>()?;
        let count = |of: &str| names.iter().filter(|name| *name == of).count();
        let (one, two) = (count("one"), count("two"));
        ensure!(one + two == 40 && (7..=33).contains(&two), "{one} and {two} of 40 connections");
        Ok(())
    })?;
    is(bed, "one")?;
    with(format!("[{{{one}, weight: 0}}, {{{two}, weight: 7}}]"), bed, |bed| {
        // Envoy's threads take a change up one after the other.
        eventually("ten in a row to go where the weight is", || {
            (0..10).try_for_each(|_| {
                let name = name(bed)?;
                ensure!(name == "two", "{name:?} has weight 0");
                Ok(())
            })
        })
    })?;
    for closed in [format!("[{{{one}, weight: 0}}, {{{two}, weight: 0}}]"), "[{name: nobody, port: 9000}]".to_owned()] {
        with(closed, bed, |bed| is(bed, ""))?;
        is(bed, "one")?;
    }
    Ok(())
}

/// The server's own certificate is what the client sees, and what goes through is for nobody else to read.
pub(crate) fn tls(bed: &mut Bed) -> Result<()> {
    let answer = |bed: &Bed, wanted: &str| {
        eventually(&format!("an answer of {wanted:?}"), || {
            let line = ["curl", "-sS", "-k", "--max-time", "10", "https://secure.demo/"];
            let said = bed.pod("demo/client")?.run(&line)?.good()?;
            ensure!(said == wanted, "{said}");
            Ok(())
        })
    };
    answer(bed, "one direct\n")?;
    with_objects(bed, &route("TLSRoute", "secure", "[{name: secure-two, port: 443}]"), |bed| {
        answer(bed, "two direct\n")
    })?;
    answer(bed, "one direct\n")?;
    // Of another name the route is not.
    let other = route("TLSRoute", "secure", "[{name: secure-two, port: 443}]").replace("[secure.demo", "[other.demo");
    let both = [other, route("TCPRoute", "secure", "[{name: secure-two, port: 443, weight: 1}]")].join("\n---\n");
    with_objects(bed, &both, |bed| answer(bed, "two direct\n"))?;
    answer(bed, "one direct\n")
}

/// A client that speaks first, and not HTTP.
pub(crate) fn undeclared(bed: &mut Bed) -> Result<()> {
    let said = bed.pod("demo/client")?.run(&["peer", "name", "10.96.0.12:27"])?.good()?;
    ensure!(said.trim() == "one", "{said}");
    Ok(())
}
