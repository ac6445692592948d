//! Collections: create, list, delete, move to another model.

use serde_json::json;

use super::{BASE, add, delete, found, path, search, three, with_notes};
use crate::support::{Server, soon};

#[tokio::test]
async fn a_collection_is_created_listed_and_deleted() {
    let server = with_notes().await;
    let view = json!({
        "name": "notes", "metadata": {"topic": "all"}, "embedding_model": "test/plain", "provider": "huggingface",
        "embedding_dimension": 8, "space": "test-space",
    });
    assert_eq!(server.get(&path("")).await.json, view);
    assert_eq!(server.get(BASE).await.json, json!([view]));
    let stats = server.get(&path("/stats")).await.json;
    assert_eq!(
        (&stats["count"], &stats["documents"], &stats["space"]),
        (&json!(0), &json!(0), &json!("test-space"))
    );

    let again = server.post(BASE, &json!({"name": "notes"})).await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "already_exists"));
    assert!(again.message().contains("'notes'"));
    assert_eq!(server.fake.calls(), 1, "the model is not called for a name that is taken");

    assert_eq!(delete(&server, &path(""), None).await.status, 204);
    for gone in [
        delete(&server, &path(""), None).await,
        server.get(&path("/stats")).await,
        search(&server, &json!({"query": "x"})).await,
    ] {
        assert_eq!((gone.status.as_u16(), gone.code()), (404, "not_found"), "{}", gone.text);
    }
}

#[tokio::test]
async fn a_collection_can_have_reduced_dimensions() {
    let server = Server::start().await;
    let made =
        server.post(BASE, &json!({"name": "short", "embedding_model": "small", "dimensions": 4})).await;
    assert_eq!((made.status.as_u16(), &made.json["embedding_dimension"]), (201, &json!(4)), "{}", made.text);
    let documents = json!({"documents": [{"id": "a", "text": "one"}]});
    assert_eq!(server.post(&format!("{BASE}/short/documents"), &documents).await.status, 200);
    let answer = server.post(&format!("{BASE}/short/search"), &json!({"query": "one"})).await;
    assert_eq!(found(&answer), ["a"]);
    assert_eq!(answer.header("x-embeddings-space"), made.json["space"]);
}

#[tokio::test]
async fn a_move_to_another_model_switches_at_the_end() {
    let server = with_notes().await;
    assert_eq!(add(&server, &three()).await.status, 200);
    let to = json!({"embedding_model": "test/gated"});
    server.fake.gate.add_permits(1); // to learn the space of the new model
    let begun = server.post(&path("/reembed"), &to).await;
    assert_eq!(begun.status, 202, "{}", begun.text);
    assert_eq!(
        (&begun.json["from"]["space"], &begun.json["to"]["space"]),
        (&json!("test-space"), &json!("gated-space"))
    );
    server.fake.has_begun(2).await;

    // During the move, searches use the old model, writes are accepted, and a second move is rejected.
    let again = server.post(&path("/reembed"), &to).await;
    assert_eq!((again.status.as_u16(), again.code()), (409, "already_moving"));
    let stats = server.get(&path("/stats")).await.json;
    assert_eq!((&stats["space"], &stats["reembed"]["done"]), (&json!("test-space"), &json!(0)));
    let late = json!({"documents": [{"id": "late", "text": "Written during the move"}]});
    assert_eq!(add(&server, &late).await.status, 200);
    assert_eq!(found(&search(&server, &json!({"query": "A table of oak", "top_k": 1})).await), ["table"]);

    server.fake.gate.add_permits(1000);
    soon(async {
        while server.get(&path("/stats")).await.json["space"] != "gated-space" {
            tokio::task::yield_now().await;
        }
    })
    .await;
    let stats = server.get(&path("/stats")).await.json;
    assert_eq!(
        (&stats["count"], &stats["embedding_model"], stats.get("reembed")),
        (&json!(4), &json!("test/gated"), None)
    );
    assert_eq!(
        found(&search(&server, &json!({"query": "Written during the move", "top_k": 1})).await),
        ["late"]
    );
    let same = server.post(&path("/reembed"), &to).await;
    assert_eq!((same.status.as_u16(), same.code()), (409, "migration_conflict"), "{}", same.text);
}

#[tokio::test]
async fn a_backup_is_created_and_a_deleted_user_gets_a_receipt() {
    let server = with_notes().await;
    add(&server, &three()).await;
    let backup = server.post("/api/v1/embeddings/collections-backup", &json!({})).await;
    assert_eq!(backup.status, 200, "{}", backup.text);
    assert!(
        backup.json["bytes"].as_u64().unwrap() > 8192
            && backup.json["file"].as_str().unwrap().ends_with(".db")
    );
    let receipt = delete(&server, "/api/v1/embeddings/users/me", None).await;
    assert_eq!(receipt.status, 200);
    assert_eq!(
        (&receipt.json["collections"], &receipt.json["documents"], &receipt.json["vectors"]),
        (&json!(1), &json!(3), &json!(3))
    );
    assert!(receipt.json["deleted_at"].as_str().unwrap().ends_with('Z'));
    assert_eq!(server.get(BASE).await.json, json!([]));
}
