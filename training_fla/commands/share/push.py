"""Upload a trained model to the Hugging Face Hub: model, processor, code files and a filled-in model card.

They go in one commit, which is tagged. The card's figures come from the run's own files. Checkpoints, optimizer
states, predictions and data never go.
"""

from pathlib import Path

from training_fla.console import Done

EXAMPLE = "fla push runs/phoenix14t/stage2 my-name/fla-llm-phoenix14t --private --dry-run"


def add_arguments(parser) -> None:
    """Declare the options of `fla push`."""
    parser.add_argument("folder", type=Path, metavar="DIR", help="folder of a trained model")
    parser.add_argument("repo_id", metavar="REPO_ID", help="owner/name on the Hub; made if it is not there")
    parser.add_argument("--private", action="store_true", help="make a new repository private")
    parser.add_argument("--revision", metavar="BRANCH", help="branch to commit to (default: main)")
    parser.add_argument("--tag", metavar="NAME", help="tag of the commit (default: weights- and their hash)")
    parser.add_argument(
        "--license", metavar="ID", help="the model's licence, e.g. cc-by-nc-4.0 (default: what the corpus's terms say)"
    )
    parser.add_argument(
        "--message", metavar="TEXT", default="Upload model, processor, code and card", help="of the commit"
    )
    parser.add_argument("--dry-run", action="store_true", help="fill and check the card, list what would go, stop")
    parser.add_argument("--show-card", action="store_true", help="print the card as well")


def run(args) -> Done:
    """Show what goes, and upload it."""
    from training_fla.hub.push import plan_upload, push

    upload = plan_upload(args.folder, args.repo_id, args.tag, args.license)
    if args.show_card:
        print(upload.card)
    print("\n".join(upload.lines()))
    if args.dry_run:
        return Done(f"dry run: nothing was sent to {args.repo_id}", "the same command without --dry-run")
    address = push(upload, private=args.private or None, revision=args.revision, message=args.message)
    return Done(f"pushed to {address}", f"fla translate {args.repo_id} VIDEO")
