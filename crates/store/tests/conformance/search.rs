//! Search: hits and their order.

use embeddery_store::{DeleteTarget, SearchMode};
use serde_json::json;

use crate::support::{COLLECTION, DIM, Tenant, document, ids, vector, vector_of};

pub async fn the_nearest_vectors_come_first(tenant: &Tenant) {
    let mut near = document("near", &["near"], json!({}));
    near.chunks[0].vector = Some(vec![1.0, 0.2, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let mut same = document("same", &["same"], json!({}));
    same.chunks[0].vector = Some(vec![5.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    let mut far = document("far", &["far"], json!({}));
    far.chunks[0].vector = Some(vec![-1.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0]);
    tenant.create_with(vec![far, near, same]).await;
    let query = vec![2.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0];
    let hits = tenant.search(SearchMode::Vector(query), 3, None).await;
    assert_eq!(ids(&hits), ["same", "near", "far"]);
    let scores: Vec<f32> = hits.iter().map(|hit| hit.score).collect();
    for (score, cosine) in scores.iter().zip([1.0, 0.980_580_7, -1.0]) {
        assert!((score - cosine).abs() < 2e-3, "{scores:?}");
    }
}

pub async fn hits_carry_text_and_span(tenant: &Tenant) {
    tenant.create_with(vec![document("d", &["one", "two"], json!({"k": [1, {"deep": null}]}))]).await;
    let query = |with_text| embeddery_store::Query {
        mode: SearchMode::Vector(vector_of("two")),
        top_k: 1,
        filter: None,
        with_text,
    };
    let hit = tenant.store.search(tenant.collection(), query(true)).await.unwrap().remove(0);
    assert_eq!((hit.text.as_deref(), hit.span.bytes, hit.document.as_str()), (Some("two"), (4, 7), "d"));
    assert_eq!(serde_json::Value::Object(hit.metadata), json!({"k": [1, {"deep": null}]}));
    let without_text = tenant.store.search(tenant.collection(), query(false)).await.unwrap().remove(0);
    assert_eq!((without_text.text, without_text.id), (None, hit.id));
    assert_eq!(tenant.store.document(tenant.collection(), "d").await.unwrap().chunks[1].id, hit.id);
}

pub async fn no_text_query_is_invalid(tenant: &Tenant) {
    tenant
        .create_with(vec![
            document("fox", &["The quick brown fox"], json!({})),
            document("dog", &["A lazy dog sleeps AND dreams"], json!({})),
            document("both", &["The fox jumps over the lazy dog"], json!({})),
            document("other", &["Füchse & 狐狸; \"quoted\" text"], json!({})),
        ])
        .await;
    let find = async |text: &str| {
        let hits = tenant.search(SearchMode::Text(text.into()), 10, None).await;
        assert!(hits.is_sorted_by(|a, b| a.score >= b.score) && hits.iter().all(|hit| hit.score.is_finite()));
        hits.into_iter().map(|hit| hit.document).collect::<Vec<_>>()
    };
    assert_eq!(find("lazy FOX dog").await[0], "both");
    assert_eq!(find("sleeps").await, ["dog"]);
    for odd in ["\"", "fox*) OR", "NEAR(fox", "a:b -fox", "' ; DROP TABLE chunks; --", "***", "& | !", ""] {
        let _ = find(odd).await;
    }
    let many: String = (0..3000).map(|i| format!("word{i} AB-{i}/5 a.b{i}* ")).collect();
    for long in
        ["数据库的配置".repeat(5000), "x".repeat(100_000), many, "a-".repeat(20_000), "\"".repeat(10_001)]
    {
        let _ = find(&long).await;
    }
    assert_eq!(find("fox*) -").await.len(), 2);
    assert_eq!(find("füchse").await, ["other"]);
}

pub async fn hybrid_prefers_documents_of_both_rankings(tenant: &Tenant) {
    let named = |id: &str, text: &str, seed| {
        let mut made = document(id, &[text], json!({}));
        made.chunks[0].vector = Some(vector(seed, DIM));
        made
    };
    let mut all: Vec<_> = (0..30).map(|i| named(&format!("far{i}"), "plain words", 1000 + i)).collect();
    all.push(named("both", "a zebra", 1));
    all.push(named("word", "zebra zebra", 2));
    tenant.create_with(all).await;
    let hits = tenant.search(SearchMode::Hybrid(vector(1, DIM), "zebra".into()), 5, None).await;
    assert_eq!(hits[0].document, "both");
    assert_eq!(hits.len(), 5);
    assert!(ids(&hits).contains(&"word"));
}

pub async fn a_search_sees_every_earlier_write(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    for round in 0..12 {
        let text = format!("text {round}");
        tenant.upsert(vec![document(&text, &[&text], json!({}))]).await.unwrap();
        assert_eq!(tenant.near(&text, 1).await, std::slice::from_ref(&text));
        if round % 3 == 2 {
            tenant
                .store
                .delete(tenant.collection(), DeleteTarget::Ids(std::slice::from_ref(&text)))
                .await
                .unwrap();
            assert_ne!(tenant.near(&text, 1).await, [text]);
        }
    }
    assert_eq!(tenant.near("all", 100).await.len(), 8);
}

pub async fn top_k_may_exceed_the_number_of_vectors(tenant: &Tenant) {
    tenant.create_with(vec![document("d", &["a", "b", "c"], json!({}))]).await;
    assert_eq!(tenant.near("a", 1000).await.len(), 3);
    assert_eq!(tenant.search(SearchMode::Hybrid(vector_of("a"), "a b".into()), 1000, None).await.len(), 3);
}

pub async fn an_empty_result_is_not_an_error(tenant: &Tenant) {
    tenant.create(COLLECTION).await;
    assert!(tenant.near("a", 5).await.is_empty());
    assert!(tenant.search(SearchMode::Text("a".into()), 5, None).await.is_empty());
    assert!(
        tenant.search(SearchMode::Vector(vector_of("a")), 5, Some(json!({"absent": 1}))).await.is_empty()
    );
}

pub async fn random_vectors_rank_by_cosine(tenant: &Tenant) {
    let vectors: Vec<Vec<f32>> = (0..700).map(|seed| vector(seed, DIM)).collect();
    let all = (0..700)
        .map(|i| {
            let mut made = document(&format!("{i:03}"), &[&format!("t{i}")], json!({}));
            made.chunks[0].vector = Some(vectors[i].clone());
            made
        })
        .collect();
    tenant.create_with(all).await;
    let cosine = |a: &[f32], b: &[f32]| {
        let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(a, b)| a * b).sum::<f32>();
        dot(a, b) / (dot(a, a) * dot(b, b)).sqrt()
    };
    for seed in 5000..5010 {
        let query = vector(seed, DIM);
        let mut expected: Vec<f32> = vectors.iter().map(|v| cosine(&query, v)).collect();
        expected.sort_by(|a, b| b.total_cmp(a));
        let hits = tenant.search(SearchMode::Vector(query), 10, None).await;
        assert_eq!(hits.len(), 10);
        for (hit, expected) in hits.iter().zip(expected) {
            assert!((hit.score - expected).abs() < 2e-3, "{} is not {expected}", hit.score);
        }
    }
}
