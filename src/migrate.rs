//! `rollcall migrate`: prepares a database, with its owner's rights.

use anyhow::Context;
use rollcall_event_store::migrate;
use rollcall_projections::tables;

use crate::{config::Settings, master_key::KeyFile};

/// Makes what is missing of the log and the read models, and prints how services connect.
pub async fn run(settings: Settings) -> anyhow::Result<()> {
    let url = settings.database.named()?;
    let key = KeyFile::named(&settings)?;
    let provisioned = provision(url.expose(), &settings, &key).await?;
    println!("log         {} ({} partitions)", provisioned.log_id, provisioned.partitions);
    println!("services    {}", service_url(url.expose(), provisioned.service.get_username()));
    Ok(())
}

/// The log first, then the read models.
pub async fn provision(
    owner_url: &str,
    settings: &Settings,
    key: &KeyFile,
) -> anyhow::Result<migrate::Provisioned> {
    let options = migrate::Options {
        service_role: settings.database.service_role.clone(),
        ..migrate::Options::default()
    };
    let provisioned = migrate::migrate(owner_url, options, key).await?;
    let owner = migrate::parse_url(owner_url)?;
    tables::migrate(&owner, provisioned.service.get_username(), provisioned.partitions)
        .await
        .context("the read models' tables could not be made")?;
    Ok(provisioned)
}

/// The owner's URL with the service's role in its place. No password: it follows from the master key.
fn service_url(owner: &str, role: &str) -> String {
    let (scheme, rest) = owner.split_once("://").expect("it was connected to");
    let (authority, path) = rest.split_at(rest.find(['/', '?']).unwrap_or(rest.len()));
    let place = authority.rsplit_once('@').map_or(authority, |(_, place)| place);
    format!("{scheme}://{role}@{place}{path}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_services_url_is_the_owners_with_another_user_and_no_password() {
        let url = |owner| service_url(owner, "rollcall_service_1");
        assert_eq!(
            url("postgres://owner:s@cret@db:5432/rollcall?sslmode=require"),
            "postgres://rollcall_service_1@db:5432/rollcall?sslmode=require"
        );
        assert_eq!(url("postgresql://db/rollcall"), "postgresql://rollcall_service_1@db/rollcall");
        assert_eq!(url("postgres://owner@%2Frun%2Fpg/r"), "postgres://rollcall_service_1@%2Frun%2Fpg/r");
    }
}
