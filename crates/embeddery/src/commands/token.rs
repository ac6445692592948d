//! `embeddery token`: tokens for companies without an identity provider, and the answer to "why does this one
//! not work".

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
        Token::Issue(wanted) => issue(wanted, multi),
        Token::Inspect(options) => look(options, multi),
    }
}

fn issue(options: Issue, multi: &MultiUser) -> anyhow::Result<ExitCode> {
    ensure!(!options.user.trim().is_empty(), "--user: must not be empty");
    let signer = signer(&options, multi)?;
    let first = |list: &[String]| list.first().cloned();
    let wanted = TokenRequest {
        lifetime: lifetime(&options.expires)?,
        user: options.user,
        role: options.role,
        issuer: first(&multi.tokens.issuers),
        audience: first(&multi.tokens.audiences),
        id: options.id.unwrap_or_else(|| uuid::Uuid::now_v7().to_string()),
        now: SystemTime::now().duration_since(UNIX_EPOCH)?.as_secs(),
    };
    let token = signer.sign(&wanted).map_err(anyhow::Error::msg)?;
    // A key that does not belong to the configured one makes tokens that nobody accepts.
    if let Err(reason) = wiring::tokens(multi)?.verify(token.as_bytes()) {
        bail!("the new token would be refused by this configuration: {reason}");
    }
    println_stdout(token);
    Ok(ExitCode::SUCCESS)
}

fn signer(options: &Issue, multi: &MultiUser) -> anyhow::Result<TokenSigner> {
    let Some(path) = &options.private_key else {
        let secret = multi.secret.as_ref().context(
            "tokens are signed by a private key here; name it with --private-key, or set JWT_ALGORITHM=HS256",
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
    let found = signers.into_iter().reduce(Result::or).context("no algorithm to sign with")?;
    found.map_err(|error| anyhow::anyhow!("{}: {error}", path.display()))
}

fn look(options: Inspect, multi: &MultiUser) -> anyhow::Result<ExitCode> {
    let token = match options.token {
        Some(token) => token,
        None => {
            let mut text = String::new();
            std::io::stdin().take(64 << 10).read_to_string(&mut text).context("reading standard input")?;
            text
        }
    };
    let token = token.trim();
    let read = inspect(token).map_err(anyhow::Error::msg)?;
    println_stdout(format_args!("header  {}", read.header));
    println_stdout(format_args!("claims  {}", serde_json::to_string(&read.claims)?));
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

/// `90s`, `30m`, `12h`, `7d`.
fn lifetime(text: &str) -> anyhow::Result<Duration> {
    let wrong = || format!("--expires: '{text}' is no time; write 90s, 30m, 12h or 7d");
    let unit = text.chars().last().with_context(wrong)?;
    let seconds = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => bail!(wrong()),
    };
    let count: u64 = text.strip_suffix(unit).and_then(|count| count.parse().ok()).with_context(wrong)?;
    let total = count.checked_mul(seconds).filter(|total| (1..=10 * 365 * 86_400).contains(total));
    Ok(Duration::from_secs(total.with_context(wrong)?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_and_nonsense_is_named() {
        assert_eq!(lifetime("30m").unwrap(), Duration::from_secs(1800));
        assert_eq!(lifetime("7d").unwrap(), Duration::from_secs(604_800));
        for wrong in ["", "30", "m", "-1h", "0s", "1.5h", "99999999999999d", "5é"] {
            assert!(lifetime(wrong).unwrap_err().to_string().contains("--expires"), "{wrong}");
        }
    }
}
