// SPDX-License-Identifier: Apache-2.0
//! Waypoints: a pod with the launcher and a real Envoy, and whatever goes through it.

#[path = "waypoints/backends.rs"]
mod backends;
#[path = "waypoints/bytes.rs"]
mod bytes;
#[path = "waypoints/cases.rs"]
mod cases;
#[path = "waypoints/changes.rs"]
mod changes;
#[path = "waypoints/filters.rs"]
mod filters;
#[path = "waypoints/grpc.rs"]
mod grpc;
#[path = "waypoints/matching.rs"]
mod matching;
#[path = "waypoints/policies.rs"]
mod policies;
#[path = "waypoints/resilience.rs"]
mod resilience;
#[path = "waypoints/routes.rs"]
mod routes;
#[path = "waypoints/security.rs"]
mod security;
#[path = "waypoints/tcp.rs"]
mod tcp;
#[path = "waypoints/telemetry.rs"]
mod telemetry;

use std::process::ExitCode;

use anyhow::{Result, ensure};
use harness::{Bed, Suite, certificates::Authority, mesh, objects, tools, wait};

/// The service with a waypoint.
const WEB: &str = "http://10.96.0.10/";

const OBJECTS: &str = include_str!("waypoints/objects.yaml");

fn main() -> ExitCode {
    Suite::new("waypoints", start)
        .with_programs(&["lateen-waypoint"])
        .with_wheels(&[&tools::ENVOY])
        .test("a_request_goes_from_the_clients_node_through_the_waypoint_to_the_servers_node", through)
        .test("a_request_with_a_header_goes_to_another_service_while_a_route_says_so", routes::by_header)
        .test("a_tenth_of_a_thousand_requests_goes_where_a_route_sends_a_tenth", routes::by_weight)
        .test("paths_are_matched_whole_by_prefix_or_by_expression", matching::paths)
        .test("headers_query_parameters_and_methods_are_matched", matching::values)
        .test("of_several_rules_the_most_special_one_counts", matching::precedence)
        .test("of_equal_matches_in_two_routes_that_of_the_older_one_counts", matching::several_routes)
        .test("a_route_of_a_clients_namespace_holds_for_clients_there_only", matching::of_clients)
        .test("host_names_of_a_route_say_nothing_in_a_mesh", matching::hostnames)
        .test("a_route_for_one_port_leaves_the_others_alone", matching::one_port)
        .test("headers_are_set_added_and_removed_by_rule_and_by_backend", filters::headers)
        .test("a_redirect_changes_what_it_names", filters::redirects)
        .test("a_rewrite_changes_host_and_path", filters::rewrites)
        .test("mirrors_get_their_share_of_copies_and_change_no_answer", filters::mirrors)
        .test("cross_origin_requests_are_answered_as_the_route_allows", filters::cors)
        .test("a_request_and_each_of_its_tries_end_in_time", resilience::timeouts)
        .test("what_fails_is_tried_again_as_often_as_the_route_says", resilience::retries)
        .test("retries_pause", resilience::backoff)
        .test("a_retry_hides_an_endpoint_that_refuses_connections", resilience::failing_endpoint)
        .test("a_backend_of_weight_zero_gets_nothing_and_without_another_one_requests_fail", backends::weights)
        .test("the_share_of_a_backend_that_is_none_is_answered_500", backends::invalid)
        .test("a_backend_in_another_namespace_is_reached_with_its_grant", backends::granted)
        .test("an_upgrade_to_websocket_goes_through", backends::websocket)
        .test("http2_without_tls_is_spoken_to_clients_and_servers", backends::cleartext_http2)
        .test("a_service_entry_has_routes_and_is_a_backend", backends::outside)
        .test("calls_of_grpc_go_by_service_method_and_header", grpc::routes)
        .test("calls_of_grpc_fail_in_words_of_grpc", grpc::failures)
        .test("calls_of_grpc_are_found_on_undeclared_ports", grpc::undeclared)
        .test("connections_are_split_by_weight", tcp::weights)
        .test("connections_of_tls_are_split_without_ending_tls", tcp::tls)
        .test("bytes_on_an_undeclared_port_are_carried", tcp::undeclared)
        .test("a_deny_policy_refuses_a_method_on_a_path_and_no_other_request", policies::deny)
        .test("an_allow_policy_goes_by_the_clients_own_identity", policies::allow)
        .test("tokens_of_several_issuers_are_judged_and_their_claims_go_on_as_headers", security::tokens::judged)
        .test(
            "without_the_keys_of_an_issuer_its_tokens_are_refused_and_the_reason_is_told",
            security::tokens::without_keys,
        )
        .test("an_authorizer_of_the_mesh_configuration_is_asked_over_http_and_grpc", security::authorizers::asked)
        .test("an_authorizer_that_does_not_answer_refuses_or_lets_pass_as_configured", security::authorizers::silent)
        .test("every_attribute_of_a_policy_refuses_what_it_matches_and_nothing_else", security::attributes::each)
        .test("policies_are_judged_in_order_and_those_on_trial_only_tell", security::order::order)
        .test("the_access_log_tells_who_asked_whom_by_which_route_as_json_and_as_text", telemetry::log)
        .test("requests_are_counted_under_istios_names_and_labels", telemetry::metrics)
        .test("spans_go_to_the_collector_when_asked_for_and_trace_context_goes_on", telemetry::spans)
        .test("a_large_answer_with_the_close_right_behind_it_arrives_whole", bytes::large)
        .test("bytes_without_http_with_the_close_right_behind_them_arrive_whole", bytes::large_without_http)
        .test("a_server_that_speaks_first_is_heard_on_a_declared_and_an_undeclared_port", bytes::server_first)
        .test("a_label_goes_on_and_off_without_one_failed_request", changes::label_on_and_off)
        .test("a_canary_route_comes_and_goes_without_one_failed_request", changes::canary)
        .test("a_gateway_goes_and_comes_without_one_failed_request", changes::gateway)
        .main()
}

fn start(world: harness::World) -> Result<Bed> {
    let server = serde_json::to_string(include_str!("waypoints/server.py"))?;
    let certificates = Authority::create()?.issue(world.state(), "tls", "spiffe://elsewhere/secure")?;
    let objects = OBJECTS.replace("SERVER", &server).replace("CERTIFICATES", &certificates.to_string_lossy());
    let mut bed = Bed::start(world, &objects)?;
    bed.mesh.start_waypoint(&bed.world, "demo/waypoint-0", "waypoint")?;
    bed.mesh.waypoint_is_ready(&bed.world, "demo/waypoint-0")?;
    for node in bed.world.nodes() {
        bed.mesh.until_dump(node, "five services behind their waypoint", |dump| {
            let behind = mesh::entries(dump, "services").filter(|service| !service["waypoint"].is_null()).count();
            ensure!(behind == 5, "{behind} services with a waypoint");
            Ok(())
        })?;
    }
    eventually("a page through the waypoint", || curl(&bed, "demo/client", &[WEB]).map(drop))?;
    Ok(bed)
}

/// Waits until something holds.
fn eventually(what: &str, look: impl FnMut() -> Result<()>) -> Result<()> {
    wait::until(what, wait::PATIENCE, look)
}

/// What a request brings, with its status behind the body.
fn curl(bed: &Bed, from: &str, arguments: &[&str]) -> Result<String> {
    let line = [&["curl", "-sS", "--max-time", "20", "-w", "%{http_code}\n"], arguments].concat();
    bed.pod(from)?.run(&line)?.good()
}

/// With an object in force for the length of `check`, which waits for it.
fn with_object(bed: &mut Bed, yaml: &str, check: impl FnOnce(&Bed) -> Result<()>) -> Result<()> {
    let object = objects::parse(yaml)?.into_iter().next().unwrap_or_default();
    let (kind, namespace, name) = objects::key(&object)?;
    bed.world.put(object)?;
    let checked = check(bed);
    bed.world.objects.remove(&kind, &namespace, &name)?;
    checked
}

/// The waypoint's own identity is what the server's proxy sees.
fn through(bed: &mut Bed) -> Result<()> {
    let (client, server) = ("n1", "n2");
    let marks = (bed.mesh.mark(client)?, bed.mesh.mark(server)?);
    // The answer to this one ends the connection, and both proxies tell of it.
    curl(bed, "demo/client", &["-o", "/dev/null", "http://10.96.0.10/large"])?;
    let outbound = bed.mesh.connection(client, marks.0, |line| {
        line.is_outbound() && line.field("error").is_empty() && line.field("dst.workload") == "waypoint-0"
    })?;
    let inbound = bed.mesh.connection(server, marks.1, |line| {
        !line.is_outbound() && line.field("error").is_empty() && line.field("dst.workload") == "web"
    })?;
    let (source, _) = outbound.identities();
    ensure!(source == bed.identity("demo/client")?, "the client is {source} in {outbound}");
    let (source, target) = inbound.identities();
    ensure!(source == bed.identity("demo/waypoint-0")?, "the server's proxy sees {source} in {inbound}");
    ensure!(target == bed.identity("demo/web")?, "the server is {target} in {inbound}");
    Ok(())
}
