// SPDX-License-Identifier: Apache-2.0
//! An external authorizer over Envoy's gRPC protocol, for policies with the action CUSTOM.

use std::net::{Ipv4Addr, SocketAddr};

use anyhow::Result;
use envoy_types::{
    ext_authz::v3::{CheckRequestExt as _, CheckResponseExt as _, DeniedHttpResponseBuilder, OkHttpResponseBuilder},
    pb::envoy::{
        service::auth::v3::{
            CheckRequest, CheckResponse,
            authorization_server::{Authorization, AuthorizationServer},
        },
        r#type::v3::StatusCode,
    },
};
use tonic::{Request, Response, Status, transport::Server};

struct Authorizer;

#[tonic::async_trait]
impl Authorization for Authorizer {
    async fn check(&self, request: Request<CheckRequest>) -> Result<Response<CheckResponse>, Status> {
        let request = request.into_inner();
        let headers = request.get_client_headers();
        let allowed = headers.and_then(|headers| headers.get("x-authz")).is_some_and(|value| value == "allow");
        let mut answer = CheckResponse::default();
        if allowed {
            let mut ok = OkHttpResponseBuilder::new();
            ok.add_header("x-user", "grpc", None, false);
            answer.set_status(Status::ok("")).set_http_response(ok);
        } else {
            let mut denied = DeniedHttpResponseBuilder::new();
            denied.set_http_status(StatusCode::Forbidden).set_body("denied by grpc");
            answer.set_status(Status::permission_denied("")).set_http_response(denied);
        }
        Ok(Response::new(answer))
    }
}

/// Serves for ever.
pub(crate) fn serve(port: u16) -> Result<()> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let server = Server::builder().add_service(AuthorizationServer::new(Authorizer));
    Ok(runtime.block_on(server.serve(SocketAddr::from((Ipv4Addr::UNSPECIFIED, port))))?)
}
