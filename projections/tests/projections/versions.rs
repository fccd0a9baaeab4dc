//! Which versions of a read model there are.

use rollcall_projections::{
    profiles::SCHEMA,
    schema::Version,
    tables::{Owner, turn_of},
};
use sqlx::postgres::PgConnectOptions;

use crate::support::{PARTITIONS, Test};

pub async fn owner(test: &Test) -> Owner {
    let (options, role): (PgConnectOptions, _) =
        (test.owner.parse().unwrap(), test.provisioned.service.get_username());
    Owner::connect(&options, role, PARTITIONS, turn_of(SCHEMA.name)).await.unwrap()
}

#[tokio::test]
async fn the_number_of_a_version_that_is_gone_is_not_given_to_another_one() {
    let test = Test::new().await;
    let mut owner = owner(&test).await;
    for number in 2..4 {
        assert_eq!(owner.make(&SCHEMA).await.unwrap(), number);
        owner.drop_version(Version { projection: SCHEMA.name, number }).await.unwrap();
    }
    owner.close().await.unwrap();
}
