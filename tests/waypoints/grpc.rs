// SPDX-License-Identifier: Apache-2.0
//! gRPC, with tonic at both ends.

use anyhow::{Result, ensure};
use harness::Bed;

use super::{cases::with_objects, eventually};

const GRPC: &str = "http://grpc.demo:90";

/// What a call prints, on one line.
fn call(bed: &Bed, to: &str, arguments: &[&str]) -> Result<String> {
    let line = [&["peer", "grpc", to], arguments].concat();
    Ok(bed.pod("demo/client")?.run(&line)?.good()?.trim().replace('\n', ", "))
}

fn expect(bed: &Bed, arguments: &[&str], wanted: &str) -> Result<()> {
    let said = call(bed, GRPC, arguments)?;
    ensure!(said == wanted, "{arguments:?}: expected {wanted:?}, got {said:?}");
    Ok(())
}

fn with_rules(bed: &mut Bed, rules: &str, check: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    let yaml = format!(
        "{{apiVersion: gateway.networking.k8s.io/v1, kind: GRPCRoute, metadata: {{namespace: demo, name: grpc}}, spec: {{\
         parentRefs: [{{group: '', kind: Service, name: grpc}}], rules: [\
         {{matches: [{{method: {{service: test.Other, method: Mark}}}}], filters: [{{type: RequestHeaderModifier, \
         requestHeaderModifier: {{set: [{{name: x-test-mark, value: 'yes'}}]}}}}], backendRefs: [{{name: grpc, port: 90}}]}}, {rules}]}}}}"
    );
    with_objects(bed, &yaml, |bed| {
        eventually("the route to be in force", || {
            expect(bed, &["test.Other/Mark"], "one test.Other/Mark  [x-test-mark: yes] []")
        })?;
        check(bed)
    })?;
    eventually("the route to be gone", || expect(bed, &["test.Other/Mark"], "one test.Other/Mark  [] []"))
}

/// A rule with these matches that leads to `two`.
fn to_two(matches: &str) -> String {
    format!("{{matches: [{matches}], backendRefs: [{{name: grpc-two, port: 90}}]}}")
}

const TO_ONE: &str = "{backendRefs: [{name: grpc, port: 90}]}";

pub(crate) fn routes(bed: &mut Bed) -> Result<()> {
    let is = |bed: &Bed, server: &str, method: &str, headers: &[&str]| {
        let said = call(bed, GRPC, &[&[method, "hello"], headers].concat())?;
        ensure!(
            said.starts_with(&format!("{server} {method} hello")),
            "{method} {headers:?}: expected {server}, got {said}"
        );
        Ok(())
    };
    let exact = to_two("{method: {service: test.Echo, method: Say}}");
    with_rules(bed, &format!("{exact}, {TO_ONE}"), |bed| {
        is(bed, "two", "test.Echo/Say", &[])?;
        is(bed, "one", "test.Echo/SayMore", &[])?;
        is(bed, "one", "test.Other/Say", &[])
    })?;
    let of_service = to_two("{method: {service: test.Echo}}");
    with_rules(bed, &format!("{of_service}, {TO_ONE}"), |bed| {
        is(bed, "two", "test.Echo/Say", &[])?;
        is(bed, "one", "test.Other/Say", &[])?;
        expect(bed, &["test.Echo/Count", "3"], "two 1, two 2, two 3")
    })?;
    let of_method = to_two("{method: {method: Say}}");
    with_rules(bed, &format!("{of_method}, {TO_ONE}"), |bed| {
        is(bed, "two", "test.Other/Say", &[])?;
        is(bed, "one", "test.Other/Shout", &[])
    })?;
    let expression = to_two("{method: {type: RegularExpression, service: 'test\\.(Echo|More)', method: 'S.*'}}");
    with_rules(bed, &format!("{expression}, {TO_ONE}"), |bed| {
        is(bed, "two", "test.Echo/Shout", &[])?;
        is(bed, "one", "test.Echo/Mutter", &[])?;
        is(bed, "one", "test.Other/Say", &[])
    })?;
    let header = to_two("{headers: [{name: x-test-a, value: a}]}");
    with_rules(bed, &format!("{header}, {TO_ONE}"), |bed| {
        is(bed, "two", "test.Echo/Say", &["-H", "x-test-a: a"])?;
        is(bed, "one", "test.Echo/Say", &["-H", "x-test-a: b"])
    })?;
    let edits = "{filters: [{type: RequestHeaderModifier, requestHeaderModifier: {add: [{name: x-test-b, value: b}], remove: [x-test-c]}}, \
                  {type: ResponseHeaderModifier, responseHeaderModifier: {set: [{name: x-test-d, value: d}]}}], \
                  backendRefs: [{name: grpc-two, port: 90}]}";
    with_rules(bed, edits, |bed| {
        expect(
            bed,
            &["test.Echo/Say", "hello", "-H", "x-test-c: c"],
            "two test.Echo/Say hello [x-test-b: b] [x-test-d: d]",
        )
    })
}

/// Statuses of servers arrive; what the waypoint says itself is one of gRPC's; what failed before anything was done is done again.
pub(crate) fn failures(bed: &mut Bed) -> Result<()> {
    expect(bed, &["test.Echo/Say", "fail 5"], "status 5: one was asked to fail")?;
    expect(bed, &["test.Echo/Say", "fail 14 retried 2"], "one test.Echo/Say fail 14 retried 2 [] []")?;
    let said = call(bed, GRPC, &["test.Echo/Say", "wait 5000", "--deadline", "300"])?;
    ensure!(said.starts_with("status 4") || said.starts_with("status 1:"), "past the client's deadline: {said}");
    let status = |bed: &Bed, wanted: &str| {
        let said = call(bed, GRPC, &["test.Echo/Say"])?;
        ensure!(said.starts_with(wanted), "expected {wanted}, got {said}");
        Ok(())
    };
    for backends in ["[{name: nobody, port: 90}]", "[{name: grpc-two, port: 90, weight: 0}]", "[]"] {
        // UNAVAILABLE.
        with_rules(bed, &format!("{{backendRefs: {backends}}}"), |bed| status(bed, "status 14"))?;
    }
    // What no rule matches is UNIMPLEMENTED.
    with_rules(bed, &to_two("{method: {service: test.Other}}"), |bed| status(bed, "status 12"))
}

pub(crate) fn undeclared(bed: &mut Bed) -> Result<()> {
    let said = call(bed, "http://open.demo:90", &["test.Echo/Say", "hello", "-H", "x-test-a: a"])?;
    ensure!(said == "one test.Echo/Say hello [x-test-a: a] []", "{said}");
    Ok(())
}
