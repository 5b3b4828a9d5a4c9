//! `tidegate revoke`: tokens that are no longer good, on every node within 5 s.

use clap::Args;
use tidegate_proto::control::v1::RevokeRequest;
use tidegate_proto::control::v1::control_client::ControlClient;
use tidegate_proto::control::v1::revoke_request::Scope;

use crate::cli::api::{ApiArgs, refusal};
use crate::cli::{Failure, client_runtime, print_line};

/// Take back a user's tokens before they end
///
/// Connections with such a token are closed with `token_revoked`, on every node within 5 s, and no new one is taken.
/// Answers once the log has it, with its position; saying it again changes nothing. It is kept for
/// log.retention_control, which has to be at least as long as a token lives.
///
/// Examples:
///
///   tidegate revoke alice                                  all tokens that alice has now
///
///   tidegate revoke alice --issued-before 1800000000       those issued (iat) before that second
///
///   tidegate revoke alice --token-id 4f1d                  the one with that id (jti)
#[derive(Debug, Args)]
#[command(verbatim_doc_comment)]
pub(super) struct RevokeArgs {
    /// Whose tokens [sub]
    user: String,
    /// Only those issued before this second since the Unix epoch, or that do not say when [iat]
    #[arg(long, value_name = "SECONDS", conflicts_with = "token_id")]
    issued_before: Option<u64>,
    /// Only the one with this id [jti]
    #[arg(long, value_name = "ID")]
    token_id: Option<String>,
    #[command(flatten)]
    api: ApiArgs,
}

pub(super) fn run(args: RevokeArgs) -> Result<(), Failure> {
    client_runtime()?.block_on(async {
        let mut client = ControlClient::new(args.api.connect().await?);
        let scope = args.issued_before.map(Scope::IssuedBeforeS).or(args.token_id.map(Scope::TokenId));
        let request = args.api.request(RevokeRequest { user: args.user.clone(), scope })?;
        let answer = client.revoke(request).await.map_err(|status| refusal(&status))?.into_inner();
        print_line(&format!("{}  revoked at {}", args.user, answer.pos))
    })
}
