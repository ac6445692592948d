//! Invalid requests to collections, and their errors.

use serde_json::{Value, json};

use super::{BASE, add, delete, path, search, three, with_notes};
use crate::support::Server;

#[tokio::test]
async fn invalid_collections_are_rejected() {
    let server = Server::start().await;
    for name in ["../up", "a/b", "", ".hidden", "🦊", "a b", "a\u{0}", &"x".repeat(300)] {
        let answer = server.post(BASE, &json!({"name": name})).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_value"), "{name}");
        assert!(
            answer.message().contains("write for example") && answer.message().len() < 300,
            "{}",
            answer.text
        );
    }
    for name in ["..%2Fup", "%F0%9F%A6%8A", &"x".repeat(300)] {
        assert_eq!(server.get(&format!("{BASE}/{name}/stats")).await.status, 404, "{name}");
    }
    for (body, word) in [
        (json!({}), "name is missing"),
        (json!({"name": 3}), "send a string"),
        (json!({"name": "a", "metdata": {}}), "did you mean 'metadata'"),
        (json!({"name": "a", "metadata": []}), "send an object"),
    ] {
        let answer = server.post(BASE, &body).await;
        assert!(answer.status == 422 && answer.message().contains(word), "{}", answer.text);
    }
    let model = server.post(BASE, &json!({"name": "a", "embedding_model": "nonsense"})).await;
    assert_eq!((model.status.as_u16(), model.code()), (404, "model_not_found"));
    assert_eq!(server.get(BASE).await.json, json!([]), "no collection was created");
}

#[tokio::test]
async fn invalid_documents_are_rejected() {
    let server = with_notes().await;
    let one = |document: Value| json!({"documents": [{"text": "fine"}, document]});
    for (body, status, word) in [
        (json!({}), 422, "documents is missing"),
        (json!({"documents": "x"}), 422, "documents is \"x\"; send a list"),
        (json!({"documents": []}), 400, "0 elements"),
        (json!({"documents": vec![json!({"text": "x"}); 2049]}), 400, "2049 elements"),
        (one(json!("text")), 422, "documents[1]"),
        (one(json!({})), 422, "documents[1]: text is missing"),
        (one(json!({"text": " \n"})), 400, "documents[1]: text is blank"),
        (one(json!({"text": "x", "id": ""})), 400, "id has 0 bytes"),
        (one(json!({"text": "x", "id": "y".repeat(513)})), 400, "id has 513 bytes"),
        (one(json!({"text": "x", "id": "a\nb"})), 400, "control character"),
        (one(json!({"text": "a\0b"})), 400, "documents[1]: text has a NUL character (U+0000)"),
        (
            one(json!({"text": "x", "metadata": {"a": {"b": ["\0"]}}})),
            400,
            "documents[1]: metadata.a.b[0] has a NUL",
        ),
        (one(json!({"text": "x", "metadata": {"a\0": 1}})), 400, "a field whose name has a NUL"),
        (one(json!({"text": "x", "txt": "y"})), 422, "documents[1]: unknown field 'txt'"),
        (one(json!({"text": "x", "metadata": {"big": "m".repeat(1 << 20)}})), 400, "metadata has 1048"),
        (
            json!({"documents": [{"id": "a", "text": "x"}, {"id": "a", "text": "y"}]}),
            400,
            "the id of documents[0]",
        ),
        (json!({"documents": [{"text": "x"}], "chunking": {"method": "magic"}}), 400, "method 'magic'"),
        (json!({"documents": [{"text": "x"}], "chunking": {"size": 0}}), 400, "size is 0"),
        (
            json!({"documents": [{"text": "x"}], "chunking": {"size": 5, "overlap": 5}}),
            400,
            "must be smaller than size",
        ),
        (json!({"documents": [{"text": "x"}], "chunking": {"sise": 5}}), 422, "did you mean 'size'"),
    ] {
        let answer = add(&server, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{}", answer.text);
        assert!(answer.message().contains(word), "'{word}' is not in: {}", answer.message());
        answer.code();
    }
    // Only the collection itself has asked the model for a vector.
    assert_eq!(server.fake.calls(), 1, "nothing is paid for an invalid request");
    assert_eq!(
        server.get(&path("/stats")).await.json["count"],
        0,
        "no document of an invalid request is stored"
    );
}

#[tokio::test]
async fn invalid_searches_are_rejected() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let nested = (0..100).fold(json!({"a": 1}), |inner, _| json!({"$not": inner}));
    for (body, status, word) in [
        (json!({}), 422, "query is missing"),
        (json!({"query": ""}), 400, "blank"),
        (json!({"query": 1}), 422, "send a string"),
        (json!({"query": "x", "top_k": 0}), 400, "top_k is 0"),
        (json!({"query": "x", "top_k": 1_000_000}), 400, "between 1 and 1000"),
        (json!({"query": "x", "top_k": "5"}), 422, "a whole number"),
        (json!({"query": "x", "mode": "magic"}), 422, "\"hybrid\""),
        (json!({"vector": [1.0, 2.0]}), 400, "2 numbers, the collection's have 8"),
        (json!({"vector": [1e39, 0, 0, 0, 0, 0, 0, 0]}), 400, "not finite"),
        (json!({"vector": [0, 0, 0, 0, 0, 0, 0, 0]}), 400, "all zeros"),
        (json!({"vector": ["NaN", 0, 0, 0, 0, 0, 0, 0]}), 422, "a list of numbers"),
        (json!({"query": "a\0b"}), 400, "query has a NUL character (U+0000), at byte 1"),
        (json!({"vector": [1, 0, 0, 0, 0, 0, 0, 0], "query": "x"}), 400, "both sent"),
        (json!({"vector": [1, 0, 0, 0, 0, 0, 0, 0], "mode": "text"}), 400, "looks for words"),
        (json!({"query": "x", "filter": "kind=animal"}), 400, "must be an object"),
        (json!({"query": "x", "filter": {"kind": {"$like": "a"}}}), 400, "'$like' of field 'kind'"),
        (json!({"query": "x", "filter": {"kind": null}}), 400, "field 'kind'"),
        (json!({"query": "x", "filter": nested}), 400, "deeper than 32"),
        (json!({"query": "x", "filter": {"kind": "a\0"}}), 400, "NUL character"),
    ] {
        let answer = search(&server, &body).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
        assert!(answer.message().contains(word), "'{word}' is not in: {}", answer.message());
    }
    let space = json!({"vector": [1, 0, 0, 0, 0, 0, 0, 0], "space": "elsewhere"});
    let answer = search(&server, &space).await;
    assert_eq!((answer.status.as_u16(), answer.code()), (409, "space_mismatch"));
    // A filter of another type than the field matches no document, which is not an error.
    let none = search(&server, &json!({"query": "x", "filter": {"legs": "four"}})).await;
    assert_eq!(none.json, json!({"results": []}));
}

#[tokio::test]
async fn invalid_deletions_and_pages_are_rejected() {
    let server = with_notes().await;
    add(&server, &three()).await;
    for (body, status) in [
        (json!({}), 422),
        (json!({"ids": ["fox"], "filter": {"a": 1}}), 422),
        (json!({"filter": {}}), 400),
        (json!({"ids": "fox"}), 422),
        (json!({"ids": ["fox"], "all": true}), 422),
        (json!({"filter": {"a": 1}, "confirm": "notes"}), 422),
        (json!({"all": false, "confirm": "notes"}), 422),
        (json!({"all": true}), 400),
        (json!({"all": true, "confirm": "Notes"}), 400),
    ] {
        let answer = delete(&server, &path("/documents"), Some(body.clone())).await;
        assert_eq!(answer.status.as_u16(), status, "{body}: {}", answer.text);
    }
    for query in ["limit=0", "limit=1001", "limit=many", "lmit=5"] {
        let answer = server.get(&path(&format!("/documents?{query}"))).await;
        assert_eq!((answer.status.as_u16(), answer.code()), (400, "invalid_value"), "{query}");
    }
    assert_eq!(server.get(&path("/stats")).await.json["documents"], 3);
}
