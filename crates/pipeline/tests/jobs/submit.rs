//! Opening, filling and starting jobs; finding them.

use embeddery_pipeline::{JobSpec, NewJob, OpenResult, Page, Priority, Status};

use crate::support::{CHUNKING, HASH, SingleDocument as _, Tenant, document, documents, plan, task};

pub async fn a_job_is_visible_once_it_has_started(tenant: &Tenant) {
    let job = tenant.opened(None, 3).await;
    tenant.store.append(job, documents(2)).await.unwrap();
    assert!(tenant.find(job).await.is_none() && tenant.all().await.is_empty());
    assert!(tenant.store.load_one(task(job, 0)).await.unwrap().is_none());
    assert_eq!(tenant.store.start(job, HASH).await.unwrap(), OpenResult::New(job));
    tenant.store.discard(job).await.unwrap();
    let dropped = tenant.opened(None, 3).await;
    tenant.store.discard(dropped).await.unwrap();
    assert!(tenant.store.start(dropped, HASH).await.is_err());
    let found = tenant.job(job).await;
    assert_eq!((found.status, found.documents[&CHUNKING], found.chunks), (Status::Pending, 5, 0));
    assert_eq!(found.plan, plan());
    assert!(found.submitted_at_ms > 1_600_000_000_000 && found.started_at_ms.is_none());
    assert!(tenant.store.append(job, documents(1)).await.is_err(), "the job has started");
    let items: Vec<u32> = tenant.rows(job).await.iter().map(|row| row.item).collect();
    assert_eq!(items, [0, 1, 2, 3, 4]);
}

pub async fn documents_are_loaded_as_they_were_sent(tenant: &Tenant) {
    let job = tenant.submitted(2).await;
    let work = tenant.store.load_one(task(job, 1)).await.unwrap().unwrap();
    let sent = document("d1");
    assert_eq!((work.document.id, work.document.text), (sent.id, sent.text));
    assert_eq!((work.document.metadata, work.document.content_type), (sent.metadata, sent.content_type));
    assert_eq!((&*work.plan, work.state, &work.tenant), (&plan(), CHUNKING, &tenant.name));
    assert!(work.chunks.is_none() && work.vectors.is_none());
    assert!(tenant.store.load_one(task(job, 2)).await.unwrap().is_none());
}

pub async fn a_job_of_another_tenant_is_invisible(tenant: &Tenant) {
    let job = tenant.submitted(1).await;
    let other = tenant.other();
    assert!(other.find(job).await.is_none() && other.all().await.is_empty());
    assert!(!other.store.cancel(&other.name, job).await.unwrap());
    assert!(other.store.retry(&other.name, job).await.unwrap().is_empty());
    assert_eq!(other.store.delete_tenant(&other.name).await.unwrap(), 0);
    assert_eq!(tenant.job(job).await.status, Status::Pending);
}

pub async fn the_same_key_and_body_make_the_same_job(tenant: &Tenant) {
    let job = tenant.opened(Some("k"), 1).await;
    assert_eq!(tenant.store.start(job, HASH).await.unwrap(), OpenResult::New(job));
    assert_eq!(tenant.store.open(tenant.new_job(Some("k"))).await.unwrap(), OpenResult::Same(job));
    assert_eq!(tenant.store.start(job, HASH).await.unwrap(), OpenResult::Same(job));
    assert_eq!(tenant.store.start(job, [8; 32]).await.unwrap(), OpenResult::Conflict(job));
    assert_eq!(tenant.all().await.len(), 1);
    let other = tenant.other();
    let same_key =
        NewJob { idempotency_key: tenant.new_job(Some("k")).idempotency_key, ..other.new_job(None) };
    assert!(
        matches!(other.store.open(same_key).await.unwrap(), OpenResult::New(_)),
        "another tenant may use the same key"
    );
}

pub async fn two_uploads_with_one_key_make_one_job(tenant: &Tenant) {
    let (first, second, third) = tokio::join!(
        tenant.opened(Some("k"), 40),
        tenant.opened(Some("k"), 40),
        tenant.opened(Some("k"), 41)
    );
    assert_eq!(tenant.store.start(first, HASH).await.unwrap(), OpenResult::New(first));
    assert_eq!(tenant.store.start(second, HASH).await.unwrap(), OpenResult::Same(first));
    assert_eq!(tenant.store.start(third, [8; 32]).await.unwrap(), OpenResult::Conflict(first));
    assert_eq!(tenant.all().await.len(), 1);
    assert_eq!(tenant.rows(first).await.len(), 40);
}

pub async fn unfinished_jobs_per_tenant_are_limited(tenant: &Tenant) {
    let open = async || {
        let new = NewJob { max_unfinished: Some(2), ..tenant.new_job(None) };
        let OpenResult::New(job) = tenant.store.open(new).await.unwrap() else { panic!("it is new") };
        tenant.store.append(job, documents(1)).await.unwrap();
        job
    };
    let jobs = [open().await, open().await, open().await];
    for job in &jobs[..2] {
        assert_eq!(tenant.store.start(*job, HASH).await.unwrap(), OpenResult::New(*job));
    }
    assert_eq!(tenant.store.start(jobs[2], HASH).await.unwrap(), OpenResult::TooMany(2));
    assert_eq!(tenant.store.unfinished_jobs(&tenant.name).await.unwrap(), 2);
    assert!(tenant.store.cancel(&tenant.name, jobs[0]).await.unwrap());
    assert_eq!(tenant.store.unfinished_jobs(&tenant.name).await.unwrap(), 1);
    let next = open().await;
    assert_eq!(tenant.store.start(next, HASH).await.unwrap(), OpenResult::New(next));
}

pub async fn jobs_are_listed_newest_first(tenant: &Tenant) {
    let mut jobs = Vec::new();
    for _ in 0..5 {
        jobs.insert(0, tenant.submitted(1).await);
    }
    let listed: Vec<_> = tenant.all().await.iter().map(|job| job.id).collect();
    assert_eq!(listed, jobs);
    let page = async |state, after| {
        let page = tenant.store.jobs(&tenant.name, Page { state, after, limit: 2 }).await.unwrap();
        page.iter().map(|job| job.id).collect::<Vec<_>>()
    };
    assert_eq!(page(None, None).await, jobs[..2]);
    assert_eq!(page(None, Some(jobs[1])).await, jobs[2..4]);
    assert_eq!(page(None, Some(jobs[4])).await, []);
    tenant.store_document(task(jobs[3], 0)).await;
    assert_eq!(page(Some(Status::Completed), None).await, [jobs[3]]);
    assert_eq!(page(Some(Status::Pending), Some(jobs[2])).await, [jobs[4]]);
}

pub async fn a_job_is_found_by_its_key(tenant: &Tenant) {
    let plan = JobSpec { dimensions: None, ..plan() };
    let new = NewJob { plan: plan.clone(), priority: Priority::High, ..tenant.new_job(Some("k")) };
    let key = new.idempotency_key.clone().unwrap();
    let OpenResult::New(job) = tenant.store.open(new).await.unwrap() else { panic!("it is new") };
    assert!(tenant.store.find_by_idempotency_key(&key).await.unwrap().is_empty());
    tenant.store.append(job, documents(1)).await.unwrap();
    tenant.store.start(job, HASH).await.unwrap();
    let found = tenant.store.find_by_idempotency_key(&key).await.unwrap().remove(0);
    assert_eq!((found.id, found.idempotency_key, found.plan), (job, Some(key), plan));
    assert_eq!(found.priority, Priority::High);
}
