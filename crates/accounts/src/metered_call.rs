//! An embedding call on a user's account: reserve tokens, embed, settle the tokens that were used.

use std::time::{Duration, Instant};

use embeddery_core::{EmbedError, EmbedRequest, Embeddings, RequestStats};
use thiserror::Error;

use crate::{
    Ledger, UserId,
    ledger::{QuotaExceeded, UsageRecord},
};

/// An embedding call that is billed to a user.
///
/// [`run`](Self::run) reserves the estimated tokens before the call and settles the real usage after it. If the call
/// fails, or if its future is dropped, the reservation is returned and nothing is billed. Usage is on disk before
/// `run` returns. Rate limits are not applied here.
#[derive(Clone, Copy)]
pub struct MeteredCall<'a> {
    /// The ledger to bill.
    pub ledger: &'a Ledger,
    /// The user to bill.
    pub user: &'a UserId,
    /// Tokens to reserve: an estimate, because the inputs have not been tokenized yet.
    pub estimated_tokens: u64,
    /// Maximum duration of the call. The reservation of a process that dies expires a minute after it.
    pub timeout: Duration,
}

/// The response to a [`MeteredCall`].
#[derive(Clone, Debug)]
pub struct MeteredResponse {
    /// The vectors.
    pub embeddings: Embeddings,
    /// The counters of the request, such as cache hits.
    pub stats: RequestStats,
    /// Duration of the embedding call, without the time to reserve and settle.
    pub elapsed: Duration,
}

/// A failed [`MeteredCall`].
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum MeteredCallError {
    /// The user's token quota is exceeded, and the embedder was not called.
    #[error("the token quota is exceeded")]
    Quota(QuotaExceeded),
    /// The embedder failed, and nothing was billed.
    #[error(transparent)]
    Embed(#[from] EmbedError),
}

impl MeteredCall<'_> {
    /// Embeds `request` with `embed` on the user's account.
    ///
    /// # Errors
    /// When the user's tokens of the day do not suffice, and when `embed` fails.
    pub async fn run<F>(
        self,
        request: EmbedRequest,
        embed: impl FnOnce(EmbedRequest) -> F,
    ) -> Result<MeteredResponse, MeteredCallError>
    where
        F: Future<Output = Result<Embeddings, EmbedError>>,
    {
        let Self { ledger, user, estimated_tokens, timeout } = self;
        let reservation =
            ledger.reserve(user, estimated_tokens, timeout).await.map_err(MeteredCallError::Quota)?;
        let stats = request.context.stats.clone();
        let started = Instant::now();
        let embeddings = embed(request).await?;
        let elapsed = started.elapsed();
        let cached_texts = stats.cache().map_or(0, |(hits, _)| hits);
        reservation.settle(UsageRecord::from_embeddings(&embeddings, cached_texts)).await;
        Ok(MeteredResponse { embeddings, stats, elapsed })
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use embeddery_core::{Input, ModelInfo, ProviderKind, RequestContext, SpaceId};

    use super::*;
    use crate::ledger::{LedgerConfig, Quotas};

    fn ledger(dir: &tempfile::TempDir) -> Ledger {
        Ledger::open(LedgerConfig {
            path: dir.path().join("usage.sqlite3"),
            quotas: Quotas { tokens_per_day: Some(100), ..Quotas::default() },
            retention_days: 400,
            prices: Arc::new(|_, _: &str| None),
        })
        .unwrap()
    }

    fn request() -> EmbedRequest {
        EmbedRequest::with_defaults([Input::Text("text".into())], RequestContext::new("ann", "request-1"))
    }

    fn embeddings(tokens: u32) -> Embeddings {
        Embeddings {
            data: vec![1.0],
            dim: 1,
            space: SpaceId::new("test"),
            tokens: vec![tokens],
            billed_tokens: 0,
            truncated: 0,
            failed: Vec::new(),
            served_by: Arc::new(ModelInfo {
                name: "test".into(),
                provider: ProviderKind::OpenAi,
                dimensions: None,
                max_tokens: None,
                matryoshka: false,
            }),
        }
    }

    #[tokio::test]
    async fn tokens_are_reserved_during_the_call_and_settled_after_it() {
        let dir = tempfile::tempdir().unwrap();
        let (ledger, user) = (ledger(&dir), UserId::new("ann"));
        let call = |estimated_tokens| MeteredCall {
            ledger: &ledger,
            user: &user,
            estimated_tokens,
            timeout: Duration::from_secs(60),
        };
        let response = call(60).run(request(), async |request| {
            assert_eq!(ledger.used(&user).await.unwrap().tokens_reserved, 60);
            request.context.stats.record_cache_lookup(1, 0);
            Ok(embeddings(7))
        });
        let response = response.await.unwrap();
        assert_eq!((response.embeddings.total_tokens(), response.stats.cache()), (7, Some((1, 0))));
        let used = ledger.used(&user).await.unwrap();
        assert_eq!((used.tokens_today, used.tokens_reserved), (7, 0));

        let failed = call(60).run(request(), async |_| Err(EmbedError::timeout("too slow"))).await;
        assert_eq!(failed.unwrap_err(), MeteredCallError::Embed(EmbedError::timeout("too slow")));
        let exceeded = call(94).run(request(), async |_| panic!("the embedder is called")).await;
        let quota = QuotaExceeded::Tokens { limit: 100, used: 7, wait: Duration::ZERO };
        let MeteredCallError::Quota(QuotaExceeded::Tokens { limit, used, .. }) = exceeded.unwrap_err() else {
            panic!("not a quota error")
        };
        assert_eq!(QuotaExceeded::Tokens { limit, used, wait: Duration::ZERO }, quota);
        let used = ledger.used(&user).await.unwrap();
        assert_eq!((used.tokens_today, used.tokens_reserved), (7, 0));
    }
}
