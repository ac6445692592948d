//! `embeddery token`: issues tokens for an installation without an identity provider, and inspects a token that is
//! refused.

use std::{
    io::Read as _,
    process::ExitCode,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use anyhow::{Context as _, bail, ensure};
use embeddery_accounts::{
    Role,
    auth::{KeyConfig, TokenAlgorithm, TokenRequest, TokenSigner, inspect},
};
use secrecy::SecretString;

use super::println_stdout;
use crate::{
    cli::{Inspect, Issue, Token},
    config::{AuthConfig, Config, MultiUser},
    wiring,
};

pub(crate) fn run(command: Token, config: &Config) -> anyhow::Result<ExitCode> {
    let AuthConfig::MultiUser(multi) = &config.accounts.auth else {
        bail!("AUTH_MODE is single_user, which has one key and no tokens; set AUTH_MODE=multi_user");
    };
    match command {
        Token::Issue(options) => issue(options, multi),
        Token::Inspect(options) => inspect_token(options, multi),
    }
}

fn issue(options: Issue, multi: &MultiUser) -> anyhow::Result<ExitCode> {
    ensure!(!options.user.trim().is_empty(), "--user: must not be empty");
    let signer = signer(&options, multi)?;
    let first = |list: &[String]| list.first().cloned();
    let request = TokenRequest {
        lifetime: parse_lifetime(&options.expires)?,
        user: options.user,
        role: options.role,
        issuer: first(&multi.tokens.issuers),
        audience: first(&multi.tokens.audiences),
        id: options.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        now: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let token = signer.sign(&request).map_err(anyhow::Error::msg)?;
    // A private key that does not belong to the configured public key would issue tokens that are always refused.
    if let Err(reason) = wiring::tokens(multi)?.verify(token.as_bytes()) {
        bail!("the new token would be refused by this configuration: {reason}");
    }
    println_stdout(token);
    Ok(ExitCode::SUCCESS)
}

fn signer(options: &Issue, multi: &MultiUser) -> anyhow::Result<TokenSigner> {
    let Some(path) = &options.private_key else {
        let secret = multi.secret.as_ref().context(
            "this configuration verifies tokens by a public key; name the private key with --private-key, or set JWT_ALGORITHM=HS256",
        )?;
        return Ok(TokenSigner::secret(secret));
    };
    let text = std::fs::read_to_string(path).with_context(|| format!("reading {}", path.display()))?;
    let text = SecretString::from(text);
    let algorithms = match &multi.tokens.keys {
        KeyConfig::Secrets(_) => bail!("JWT_ALGORITHM is HS256, which has no private key"),
        KeyConfig::Pem { algorithm, .. } => vec![*algorithm],
        KeyConfig::Jwks(_) => vec![TokenAlgorithm::Es256, TokenAlgorithm::Rs256],
    };
    let signers: Vec<_> =
        algorithms.into_iter().map(|algorithm| TokenSigner::pem(algorithm, &text)).collect();
    let signer = signers.into_iter().reduce(Result::or).context("no algorithm to sign with")?;
    signer.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

fn inspect_token(options: Inspect, multi: &MultiUser) -> anyhow::Result<ExitCode> {
    let token = match options.token {
        Some(token) => token,
        None => {
            let mut text = String::new();
            std::io::stdin().take(64 << 10).read_to_string(&mut text).context("reading standard input")?;
            text
        }
    };
    let token = token.trim();
    let inspection = inspect(token).map_err(anyhow::Error::msg)?;
    println_stdout(format_args!("header  {}", inspection.header));
    println_stdout(format_args!("claims  {}", serde_json::to_string(&inspection.claims)?));
    match wiring::tokens(multi)?.verify(token.as_bytes()) {
        Ok(identity) => {
            let role = if identity.role == Role::Admin { "an admin" } else { "a user" };
            println_stdout(format_args!(
                "good    {} is {role}; directory {}",
                identity.user,
                identity.user.directory_name()
            ));
            Ok(ExitCode::SUCCESS)
        }
        Err(reason) => {
            println_stdout(format_args!("REFUSED {reason}"));
            Ok(ExitCode::FAILURE)
        }
    }
}

/// Parses `90s`, `30m`, `12h` or `7d`. The maximum is ten years.
fn parse_lifetime(text: &str) -> anyhow::Result<Duration> {
    let invalid = || format!("--expires: '{text}' is not a duration; write 90s, 30m, 12h or 7d");
    let unit = text.chars().last().with_context(invalid)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => bail!(invalid()),
    };
    let count: u64 = text.strip_suffix(unit).and_then(|count| count.parse().ok()).with_context(invalid)?;
    let total = count.checked_mul(seconds).filter(|total| (1..=10 * 365 * 86_400).contains(total));
    Ok(Duration::from_secs(total.with_context(invalid)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_are_parsed_and_an_error_names_the_option() {
        assert_eq!(parse_lifetime("30m").unwrap(), Duration::from_secs(1800));
        assert_eq!(parse_lifetime("7d").unwrap(), Duration::from_secs(604_800));
        for wrong in ["", "30", "m", "-1h", "0s", "1.5h", "99999999999999d", "5é"] {
            assert!(parse_lifetime(wrong).unwrap_err().to_string().contains("--expires"), "{wrong}");
        }
    }
}
