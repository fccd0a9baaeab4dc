//! Keys are exchanged while the service runs.

use crate::{
    rollcall::eventually,
    service::{ROTATING, Service, claims_with, write_keys},
    signer::Signer,
};

#[tokio::test]
async fn a_new_file_of_keys_counts_without_a_restart_and_the_old_keys_no_more() {
    let service = Service::shared();
    let new = Signer::ed25519("second");
    let claims = claims_with("iss", ROTATING);
    let (of_old, of_new) = (service.rotating.token(&claims), new.token(&claims));
    let status = async |token: &str| service.ask_with(token, "GET", "/api/v1/users", None).await.status;
    assert_eq!((status(&of_old).await, status(&of_new).await), (200, 401));

    write_keys(&service.rotating_keys(), &[&service.rotating, &new]);
    eventually("the new key", async || (status(&of_new).await == 200).then_some(())).await;
    assert_eq!(status(&of_old).await, 200);

    write_keys(&service.rotating_keys(), &[&new]);
    eventually("the end of the old key", async || (status(&of_old).await == 401).then_some(())).await;
    assert_eq!(status(&of_new).await, 200);

    std::fs::write(service.rotating_keys(), "spoilt").unwrap();
    assert_eq!(status(&of_old).await, 401);
    assert_eq!(status(&of_new).await, 200);
}
