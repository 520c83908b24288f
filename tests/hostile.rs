// SPDX-License-Identifier: Apache-2.0
//! The data path among hostile peers. Each test attacks the real proxies from a pod and shows three things: the proxy says why it refused, what it cost is
//! bounded (memory, descriptors, threads), and the neighbours notice nothing (connections that stood go on, new ones come through meanwhile).

#[path = "hostile/crowds.rs"]
mod crowds;
#[path = "hostile/frames.rs"]
mod frames;
#[path = "hostile/identities.rs"]
mod identities;
#[path = "hostile/listeners.rs"]
mod listeners;
#[path = "hostile/requests.rs"]
mod requests;
#[path = "hostile/servers.rs"]
mod servers;
#[path = "hostile/siege.rs"]
mod siege;

use std::process::ExitCode;

use harness::Suite;

use siege::Siege;

fn main() -> ExitCode {
    Suite::new("hostile", Siege::prepare)
        .test("what_is_no_tls_on_the_hbone_port_is_refused_and_logged", listeners::hbone_port)
        .test("the_redirect_ports_refuse_whoever_connects_to_them_directly", listeners::redirect_ports)
        .test("a_client_whose_certificate_is_not_good_enough_is_refused_with_the_reason", identities::clients)
        .test("a_server_that_is_not_what_it_should_be_gets_no_byte_of_an_application", identities::servers)
        .test("a_request_for_what_a_peer_may_not_have_is_answered_and_its_connection_serves_on", requests::answered)
        .test("a_malformed_request_costs_its_stream_and_no_more", requests::malformed)
        .test("a_frame_that_should_not_be_ends_what_it_concerns_with_the_right_code", frames::faults)
        .test("a_connection_that_does_not_begin_as_http2_is_ended", frames::prefaces)
        .test("a_flood_of_frames_ends_the_connection_it_comes_on", frames::floods)
        .test("a_server_that_misbehaves_behind_its_handshake_costs_only_the_connection_that_met_it", servers::manners)
        .test("two_thousand_connections_through_one_pair_of_pods_all_answer", crowds::parallel)
        .test("a_thousand_streams_that_nobody_reads_stay_within_the_budget_of_their_pod", crowds::stalled_streams)
        .test("a_thousand_readers_that_stall_stay_within_the_budget_of_their_pod", crowds::stalled_readers)
        .test("handshakes_that_hang_are_few_for_each_address_and_end_by_a_deadline", crowds::handshakes)
        .test("a_pod_that_opens_all_it_can_leaves_the_others_theirs", crowds::greedy)
        .test("whoever_waits_for_a_server_that_hangs_waits_so_long_and_no_longer", servers::deadlines)
        .test("when_all_is_over_the_proxies_are_as_they_were", siege::aftermath)
        .test("a_flood_of_refusals_does_not_drown_the_log", listeners::log_flood)
        .main()
}
